//! The keys that one rule names: its cache's template with enumerated values filled in.
//!
//! `v1:deal_stats:{org_id}:{days}` with days 7 and 30, for a rule that gives `org_id`, has
//! two variants: `…:<0>:7` and `…:<0>:30`. Filled in once, when the configuration is
//! read, so that a row costs copying bytes and nothing else.

use std::collections::BTreeMap;

use super::escape::escape_into;
use super::template::{Part, Template};

/// More keys than this for one row is a mistake: then the cache wants a scope.
pub(super) const MAX_VARIANTS: usize = 1000;

/// What keys a rule's values make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyShape {
    /// The parameters that have to be given, in the order of [`Piece::Given`].
    pub(super) parameters: Vec<Box<str>>,
    variants: Vec<Vec<Piece>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Given(usize),
}

impl KeyShape {
    /// `given` are the parameters with a value of their own; of the others `enumerated`
    /// holds the values. `None` if one has neither, or there are too many variants.
    pub(super) fn new(
        key_prefix: &[u8],
        template: &Template,
        enumerated: &BTreeMap<String, Vec<String>>,
        given: &dyn Fn(&str) -> bool,
    ) -> Option<Self> {
        let parameters: Vec<Box<str>> =
            template.parameters().filter(|name| given(name)).map(Into::into).collect();
        let mut variants = vec![vec![Piece::Literal(key_prefix.to_vec())]];
        for part in template.parts() {
            let choices = match part {
                Part::Literal(text) => vec![Piece::Literal(text.as_bytes().to_vec())],
                Part::Parameter(name) => match parameters.iter().position(|p| p == name) {
                    Some(index) => vec![Piece::Given(index)],
                    None => enumerated
                        .get(&**name)?
                        .iter()
                        .map(|value| {
                            let mut text = Vec::new();
                            escape_into(value.as_bytes(), &mut text);
                            Piece::Literal(text)
                        })
                        .collect(),
                },
            };
            if variants.len().saturating_mul(choices.len()) > MAX_VARIANTS {
                return None;
            }
            variants = variants
                .iter()
                .flat_map(|variant| choices.iter().map(|choice| extended(variant, choice)))
                .collect();
        }
        Some(KeyShape { parameters, variants })
    }

    /// How many keys one row makes.
    pub(super) fn variants(&self) -> usize {
        self.variants.len()
    }

    /// Appends one variant's key to `out`. A value that is not there is left out: the
    /// caller has looked.
    pub(super) fn render<'v>(
        &self,
        variant: usize,
        value: impl Fn(usize) -> Option<&'v [u8]>,
        out: &mut Vec<u8>,
    ) {
        for piece in self.variants.get(variant).into_iter().flatten() {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Given(index) => escape_into(value(*index).unwrap_or_default(), out),
            }
        }
    }
}

fn extended(variant: &[Piece], choice: &Piece) -> Vec<Piece> {
    let mut variant = variant.to_vec();
    match (variant.last_mut(), choice) {
        (Some(Piece::Literal(text)), Piece::Literal(more)) => text.extend_from_slice(more),
        _ => variant.push(choice.clone()),
    }
    variant
}
