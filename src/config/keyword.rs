//! Settings that are one word of a few.

/// Reads an enum from its words, and from nothing else.
///
/// A derived `Deserialize` also takes the position of a variant (figment hands it a
/// number as one), so that `priority = 0` would silently mean `high`.
macro_rules! keywords {
    ($name:ident { $($word:literal => $variant:ident),+ $(,)? }) => {
        impl $name {
            /// The words that the configuration knows for it.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Word;

                impl serde::de::Visitor<'_> for Word {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        let words: Vec<_> = $name::WORDS.iter().map(|w| format!("\"{w}\"")).collect();
                        write!(f, "one of {}", words.join(", "))
                    }

                    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<$name, E> {
                        match word {
                            $($word => Ok($name::$variant),)+
                            _ => Err(E::unknown_variant(word, $name::WORDS)),
                        }
                    }
                }

                deserializer.deserialize_str(Word)
            }
        }
    };
}

pub(crate) use keywords;
