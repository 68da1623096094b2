//! YAML events to trees.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::{Entry, MAX_DEPTH, MAX_DOCUMENTS, MAX_KEY_BYTES, MAX_VALUES, Node, Value, problem_at};
use crate::manifest::error::{ManifestError, Problem};
use crate::manifest::field::Path;

/// A collection that is not yet closed.
struct Open {
    line: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    /// Entries, and the key whose value comes next.
    Map(Vec<Entry>, Option<(String, usize)>),
}

struct Builder {
    document: usize,
    values: usize,
    open: Vec<Open>,
    documents: Vec<(usize, Node)>,
}

pub(super) fn read(text: &str) -> Result<Vec<(usize, Node)>, ManifestError> {
    let mut builder = Builder { document: 0, values: 0, open: Vec::new(), documents: Vec::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| builder.syntax(&error))?;
        builder.handle(event, span.start.line())?;
    }
    Ok(builder.documents)
}

impl Builder {
    fn handle(&mut self, event: Event<'_>, line: usize) -> Result<(), ManifestError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.document += 1;
                if self.document > MAX_DOCUMENTS {
                    return Err(self.refuse(line, Problem::TooMany { what: "documents", max: MAX_DOCUMENTS }));
                }
                Ok(())
            }
            Event::Alias(_) => Err(self.refuse(line, Problem::Indirect("aliases"))),
            Event::Scalar(text, style, anchor, tag) => {
                self.plain(line, anchor, tag.is_some())?;
                self.scalar(&text, style, line)
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain(line, anchor, tag.is_some())?;
                self.push(line, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.plain(line, anchor, tag.is_some())?;
                self.push(line, Content::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    /// Refuses anchors and tags, counts values.
    fn plain(&mut self, line: usize, anchor: usize, tagged: bool) -> Result<(), ManifestError> {
        if anchor != 0 {
            return Err(self.refuse(line, Problem::Indirect("anchors")));
        }
        if tagged {
            return Err(self.refuse(line, Problem::Indirect("tags")));
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(self.refuse(line, Problem::TooMany { what: "values", max: MAX_VALUES }));
        }
        Ok(())
    }

    fn push(&mut self, line: usize, content: Content) -> Result<(), ManifestError> {
        if self.awaits_key() {
            return Err(self.refuse(line, Problem::Syntax("a key must be a text".to_owned())));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(self.refuse(line, Problem::TooDeep { max: MAX_DEPTH }));
        }
        self.open.push(Open { line, content });
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map(_, None), .. }))
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, line: usize) -> Result<(), ManifestError> {
        if !self.awaits_key() {
            let value = if style == ScalarStyle::Plain { plain_value(text) } else { Value::Text(text.to_owned()) };
            return self.attach(Node { line, value });
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(self.refuse(line, Problem::TextTooLong { bytes: text.len(), max: MAX_KEY_BYTES }));
        }
        if text == "<<" && style == ScalarStyle::Plain {
            return Err(self.refuse(line, Problem::Indirect("merge keys")));
        }
        if let Some(Open { content: Content::Map(_, next), .. }) = self.open.last_mut() {
            *next = Some((text.to_owned(), line));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), ManifestError> {
        let Some(Open { line, content }) = self.open.pop() else {
            return Ok(());
        };
        let value = match content {
            Content::List(nodes) => Value::List(nodes),
            Content::Map(entries, _) => {
                self.refuse_double_keys(&entries)?;
                Value::Map(entries)
            }
        };
        self.attach(Node { line, value })
    }

    /// Puts a finished value where it belongs.
    fn attach(&mut self, node: Node) -> Result<(), ManifestError> {
        match self.open.last_mut() {
            None if node.value == Value::Null => {}
            None => self.documents.push((self.document, node)),
            Some(Open { content: Content::List(nodes), .. }) => nodes.push(node),
            Some(Open { content: Content::Map(entries, next), .. }) => match next.take() {
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => return Err(self.refuse(node.line, Problem::Syntax("a key must be a text".to_owned()))),
            },
        }
        Ok(())
    }

    fn refuse_double_keys(&self, entries: &[Entry]) -> Result<(), ManifestError> {
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let double = sorted.windows(2).find_map(|pair| match pair {
            [first, second] if first.key == second.key => Some(*second),
            _ => None,
        });
        match double {
            None => Ok(()),
            Some(Entry { key, line, .. }) => {
                Err(ManifestError { path: self.path_of(key), ..self.refuse(*line, Problem::DuplicateKey) })
            }
        }
    }

    /// Path of a key of the mapping that was just closed.
    fn path_of(&self, key: &str) -> String {
        let mut path = Path::root();
        for open in &self.open {
            path = match &open.content {
                Content::List(nodes) => path.index(nodes.len()),
                Content::Map(_, Some((key, _))) => path.key(key),
                Content::Map(_, None) => path,
            };
        }
        path.key(key).into_text()
    }

    fn refuse(&self, line: usize, problem: Problem) -> ManifestError {
        problem_at(self.document.max(1), Some(line), problem)
    }

    fn syntax(&self, error: &ScanError) -> ManifestError {
        let line = error.marker().line();
        self.refuse(line, Problem::Syntax(error.info().to_owned()))
    }
}

/// A scalar without quotes, in YAML 1.2's core schema without its octal and hexadecimal numbers (they stay text, so a
/// port written `0x50` is refused as no number).
fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let first_is_digit = digits.strip_prefix('.').unwrap_or(digits).starts_with(|c: char| c.is_ascii_digit());
    if !first_is_digit {
        return Value::Text(text.to_owned());
    }
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    if !leading_zero && let Ok(number) = text.parse() {
        return Value::Int(number);
    }
    if text.parse::<f64>().is_ok() {
        return Value::OtherNumber(text.to_owned());
    }
    Value::Text(text.to_owned())
}
