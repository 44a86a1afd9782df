//! The command with its placeholders, which are filled in for each item.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::columns::{Columns, HeaderLine};
use crate::items::Item;
use crate::placeholders::{self, PathPart, Resolved, Syntax, Token};
use crate::shell_syntax;

/// A command before the columns of the input are known.
#[derive(Debug)]
pub(crate) struct UnresolvedTemplate {
    arguments: Vec<Vec<Token>>,
    item: Vec<u8>,
    columns: bool,
    /// Whether it is one text for `sh -c`, into which items are inserted quoted.
    shell: bool,
}

/// A command whose placeholders can be filled in.
#[derive(Debug, Default)]
pub(crate) struct Template {
    arguments: Vec<Vec<TemplatePart>>,
    shell: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum TemplatePart {
    Text(Vec<u8>),
    /// The item's number, from 1.
    Number,
    Item(PathPart),
    /// A field, by index from 0.
    Field(usize, PathPart),
}

impl UnresolvedTemplate {
    /// Reads a command. Refuses braces that look like a mistake.
    pub(crate) fn new(
        command: &[OsString],
        item: &str,
        columns: bool,
        shell: bool,
    ) -> Result<Self, String> {
        let syntax = Syntax { item: item.as_bytes(), columns };
        let arguments = if shell {
            vec![syntax.tokens(command.join(OsStr::new(" ")).as_bytes())?]
        } else {
            let pieces = command.iter().map(|argument| syntax.tokens(argument.as_bytes()));
            pieces.collect::<Result<_, _>>()?
        };
        Ok(Self { arguments, item: item.as_bytes().to_vec(), columns, shell })
    }

    /// Whether the first record is a header, according to the placeholders.
    pub(crate) fn header(&self) -> HeaderLine {
        placeholders::header(self.arguments.iter().flatten())
    }

    pub(crate) fn has_columns(&self) -> bool {
        self.columns
    }

    /// The program, if it is the same for every item.
    pub(crate) fn program(&self) -> Option<&OsStr> {
        match self.arguments.first()?.as_slice() {
            [Token::Text(text)] if !self.shell => Some(OsStr::from_bytes(text)),
            _ => None,
        }
    }

    /// Resolves the placeholders for these columns, or for an input without columns.
    pub(crate) fn template(&self, columns: Option<&Columns>) -> Result<Template, String> {
        let syntax = Syntax { item: &self.item, columns: self.columns };
        let part = |piece: &Token| {
            Ok(match piece {
                Token::Text(text) => TemplatePart::Text(text.clone()),
                Token::Number => TemplatePart::Number,
                Token::Item(part) => TemplatePart::Item(*part),
                Token::Braces(inside, meant) => {
                    let Some(columns) = columns else { return Err(syntax.unknown(inside, None)) };
                    match syntax.resolve(inside, *meant, columns)? {
                        Resolved::Column(place, part) => TemplatePart::Field(place, part),
                        Resolved::Text(text) => TemplatePart::Text(text),
                    }
                }
            })
        };
        let parts = |pieces: &Vec<Token>| pieces.iter().map(part).collect();
        let mut arguments =
            self.arguments.iter().map(parts).collect::<Result<Vec<Vec<TemplatePart>>, String>>()?;
        let is_value =
            |part: &TemplatePart| matches!(part, TemplatePart::Item(_) | TemplatePart::Field(..));
        if !arguments.iter().flatten().any(is_value) {
            if self.shell {
                arguments[0].extend([
                    TemplatePart::Text(b" ".to_vec()),
                    TemplatePart::Item(PathPart::Whole),
                ]);
            } else {
                arguments.push(vec![TemplatePart::Item(PathPart::Whole)]);
            }
        }
        if self.shell {
            let texts = arguments[0].iter().map(|part| match part {
                TemplatePart::Text(text) => shell_syntax::Segment::Text(text),
                TemplatePart::Number => shell_syntax::Segment::Text(b"1"),
                TemplatePart::Item(_) | TemplatePart::Field(..) => shell_syntax::Segment::Value,
            });
            shell_syntax::check(texts)?;
        }
        Ok(Template { arguments, shell: self.shell })
    }
}

impl Template {
    /// The program and its arguments for an item.
    pub(crate) fn fill(&self, item: &Item) -> Result<Vec<OsString>, String> {
        let mut filled = vec![];
        for argument in &self.arguments {
            let mut bytes = vec![];
            for part in argument {
                match part {
                    TemplatePart::Text(text) => bytes.extend_from_slice(text),
                    TemplatePart::Number => {
                        bytes.extend_from_slice(item.seq.to_string().as_bytes());
                    }
                    TemplatePart::Item(part) => self.put_item(&mut bytes, item, *part)?,
                    TemplatePart::Field(place, part) => {
                        self.put(&mut bytes, part.take(item.field(*place)?))?;
                    }
                }
            }
            filled.push(OsString::from_vec(bytes));
        }
        if self.shell {
            filled.splice(0..0, ["sh".into(), "-c".into()]);
        }
        Ok(filled)
    }

    /// Appends the item. With columns, a part of it is that part of each field, separated by spaces.
    fn put_item(&self, bytes: &mut Vec<u8>, item: &Item, part: PathPart) -> Result<(), String> {
        match &item.fields {
            Some(fields) if part != PathPart::Whole => {
                for (place, field) in fields.iter().enumerate() {
                    if place > 0 {
                        bytes.push(b' ');
                    }
                    self.put(bytes, part.take(field))?;
                }
                Ok(())
            }
            _ => self.put(bytes, part.take(&item.text)),
        }
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

/// A command as a user would type it.
pub(crate) fn display(command: &[OsString]) -> String {
    let words = command.iter().map(|word| {
        let word = word.as_bytes();
        shlex::bytes::try_quote(word).unwrap_or(Cow::Borrowed(word))
    });
    String::from_utf8_lossy(&words.collect::<Vec<_>>().join(&b' ')).into_owned()
}
