//! The command with its placeholders, and what it becomes for an item.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::items::{Column, Item};

/// A command, parsed once.
#[derive(Debug)]
pub(crate) struct Template {
    arguments: Vec<Vec<Part>>,
    /// Whether it is one text for `sh -c`, in which items are quoted.
    shell: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    /// The whole item.
    Item,
    /// The item's number, from 1.
    Number,
    /// A field, by its column.
    Field(Column),
}

impl Template {
    /// Parses a command. Columns stand for themselves only where the input has columns.
    pub(crate) fn new(command: &[OsString], item: &str, columns: bool, shell: bool) -> Self {
        let parse = |text: &OsStr| parse(text.as_bytes(), item.as_bytes(), columns);
        let mut arguments: Vec<Vec<Part>> = if shell {
            vec![parse(&command.join(OsStr::new(" ")))]
        } else {
            command.iter().map(|argument| parse(argument)).collect()
        };
        let mentions_item = |part: &Part| matches!(part, Part::Item | Part::Field(_));
        if !arguments.iter().flatten().any(mentions_item) {
            if shell {
                arguments[0].extend([Part::Text(b" ".to_vec()), Part::Item]);
            } else {
                arguments.push(vec![Part::Item]);
            }
        }
        Self { arguments, shell }
    }

    /// The columns that it mentions.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &Column> {
        self.arguments.iter().flatten().filter_map(|part| match part {
            Part::Field(column) => Some(column),
            _ => None,
        })
    }

    /// The program, where it is the same for every item.
    pub(crate) fn program(&self) -> Option<&OsStr> {
        match self.arguments.first()?.as_slice() {
            [Part::Text(text)] if !self.shell => Some(OsStr::from_bytes(text)),
            _ => None,
        }
    }

    /// The program and its arguments for an item.
    pub(crate) fn fill(&self, item: &Item) -> Result<Vec<OsString>, String> {
        let mut filled = vec![];
        for argument in &self.arguments {
            let mut bytes = vec![];
            for part in argument {
                match part {
                    Part::Text(text) => bytes.extend_from_slice(text),
                    Part::Number => bytes.extend_from_slice(item.seq.to_string().as_bytes()),
                    Part::Item => self.put(&mut bytes, &item.text)?,
                    Part::Field(column) => self.put(&mut bytes, item.field(column)?)?,
                }
            }
            filled.push(OsString::from_vec(bytes));
        }
        if self.shell {
            filled.splice(0..0, ["sh".into(), "-c".into()]);
        }
        Ok(filled)
    }

    fn put(&self, bytes: &mut Vec<u8>, value: &[u8]) -> Result<(), String> {
        if value.contains(&0) {
            return Err("it holds a NUL character, which no argument can".to_owned());
        }
        if self.shell {
            let quoted = shlex::bytes::try_quote(value).map_err(|error| error.to_string())?;
            bytes.extend_from_slice(&quoted);
        } else {
            bytes.extend_from_slice(value);
        }
        Ok(())
    }
}

fn parse(mut text: &[u8], item: &[u8], columns: bool) -> Vec<Part> {
    let mut parts = vec![];
    let mut plain = vec![];
    while let Some((&first, rest)) = text.split_first() {
        let placeholder = if !item.is_empty() && text.starts_with(item) {
            Some((Part::Item, item.len()))
        } else if text.starts_with(b"{#}") {
            Some((Part::Number, 3))
        } else if columns && first == b'{' {
            field(rest).map(|(column, length)| (Part::Field(column), length + 2))
        } else {
            None
        };
        match placeholder {
            Some((part, length)) => {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(part);
                text = &text[length..];
            }
            None => {
                plain.push(first);
                text = rest;
            }
        }
    }
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Text(plain));
    }
    parts
}

/// `NAME}` or `3}` at the start of a text: the column, and the length of its name.
fn field(text: &[u8]) -> Option<(Column, usize)> {
    let length = text.iter().position(|byte| *byte == b'}')?;
    let name = std::str::from_utf8(&text[..length]).ok()?;
    let is_name = !name.is_empty() && !name.contains(['{', '\n']);
    is_name.then(|| (Column::parse(name), length))
}

/// A command as one would type it.
pub(crate) fn display(command: &[OsString]) -> String {
    let words = command.iter().map(|word| {
        let word = word.as_bytes();
        shlex::bytes::try_quote(word).unwrap_or(Cow::Borrowed(word))
    });
    String::from_utf8_lossy(&words.collect::<Vec<_>>().join(&b' ')).into_owned()
}
