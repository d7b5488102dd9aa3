//! Problems as their reader sees them: with file, line and column, and the lines around.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, SourceCode, SourceSpan, SpanContents, ThemeCharacters, ThemeStyles,
};

/// Everything that is wrong with a configuration. Exit code 78.
///
/// `Display` gives one `file:line:column: message` a problem, as editors and log readers
/// like it; [`Diagnostics::render`] shows the lines in question.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    findings: Vec<Finding>,
}

/// A problem and its place.
#[derive(Debug, Clone)]
pub struct Finding {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// The file, or the variable or flag that set the value.
    pub(super) origin: Option<String>,
    pub(super) place: Option<Place>,
    /// What the mark in the file is labelled with: the path of the setting.
    pub(super) label: Option<String>,
    pub(super) snippet: Option<Snippet>,
}

/// A place in the file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// In the text that is shown, where secrets are masked.
    pub(super) shown: Range<usize>,
}

/// The file as it may be shown, and the place that a finding is about.
#[derive(Debug, Clone)]
pub(super) struct Snippet {
    pub(super) name: String,
    pub(super) text: Arc<str>,
    pub(super) place: Place,
}

impl Diagnostics {
    /// These findings, from the top of the file to its end; what is not in the file first.
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings
            .sort_by_key(|finding| finding.place.as_ref().map(|place| (place.line, place.column)));
        Diagnostics { findings }
    }

    /// One finding about a file as a whole.
    pub(super) fn of_file(name: &Path, message: String, hint: &str) -> Self {
        Diagnostics::new(vec![Finding {
            message,
            hint: Some(hint.to_owned()),
            origin: Some(name.display().to_string()),
            place: None,
            label: None,
            snippet: None,
        }])
    }

    /// One a problem.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Adds what others found.
    pub fn extend(&mut self, others: Diagnostics) {
        self.findings.extend(others.findings);
        *self = Diagnostics::new(std::mem::take(&mut self.findings));
    }

    /// For people: each problem with the lines that it is about.
    #[must_use]
    pub fn render(&self, width: usize, style: Style) -> String {
        let theme = match style {
            Style::Plain => {
                GraphicalTheme { characters: ThemeCharacters::ascii(), styles: ThemeStyles::none() }
            }
            Style::Unicode => GraphicalTheme::unicode_nocolor(),
            Style::Colour => GraphicalTheme::unicode(),
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
        let mut shown = String::new();
        for finding in &self.findings {
            // Writing to a String fails only if the report itself does; the message must survive.
            if handler.render_report(&mut shown, finding).is_err() {
                shown.push_str(&format!("{}\n", finding.headline()));
            }
            shown.push('\n');
        }
        shown.push_str(&self.summary());
        shown.push('\n');
        shown
    }

    fn summary(&self) -> String {
        match self.findings.len() {
            1 => "The configuration has 1 problem.".to_owned(),
            several => format!("The configuration has {several} problems."),
        }
    }
}

/// How diagnostics are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// ASCII alone: logs, terminals that know nothing else.
    Plain,
    /// Lines and marks, no colours.
    Unicode,
    /// Lines, marks and colours.
    Colour,
}

impl Finding {
    /// What is wrong, in one sentence.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Line and column, if it is in the file.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// `file:line:column: message`, or with the variable or flag that set the value.
    fn headline(&self) -> String {
        match (&self.origin, &self.place) {
            (Some(file), Some(place)) => {
                format!("{file}:{}:{}: {}", place.line, place.column, self.message)
            }
            (Some(origin), None) => format!("{origin}: {}", self.message),
            (None, _) => self.message.clone(),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, finding) in self.findings.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&finding.headline())?;
            if let Some(hint) = &finding.hint {
                write!(f, "\n  hint: {}", hint.replace('\n', "\n  "))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl Diagnostic for Diagnostics {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new("configuration"))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.findings.iter().map(|finding| finding as &dyn Diagnostic)))
    }
}

/// Without the place: whoever renders a `Diagnostic` shows that by itself.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, &self.snippet) {
            (Some(origin), None) => write!(f, "{origin}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Finding {}

impl Diagnostic for Finding {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.snippet.as_ref().map(|snippet| snippet as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place.as_ref()?;
        let span = SourceSpan::from(place.shown.clone());
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(
            self.label.clone(),
            span,
        ))))
    }
}

impl SourceCode for Snippet {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let read = (*self.text).read_span(span, lines_before, lines_after)?;
        // Asked for the place alone, answer with that of the file as it is: a mask before
        // it in the line has moved the shown one, and miette counts columns in bytes.
        let exact =
            lines_before == 0 && lines_after == 0 && span.offset() == self.place.shown.start;
        let (line, column) = match exact {
            true => (self.place.line - 1, self.place.column - 1),
            false => (read.line(), read.column()),
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            read.data(),
            *read.span(),
            line,
            column,
            read.line_count(),
        )))
    }
}
