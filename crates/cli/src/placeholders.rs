//! Finds the placeholders in a command.
//!
//! `{}`, `{#}` and GNU parallel's `{.}`, `{/}`, `{//}`, `{/.}` are placeholders. If the input has columns,
//! so are `{3}`, `{name}` and both with such an ending (`{name.}`). Other braces are plain text if they cannot
//! be a placeholder: JSON, awk programs, `${HOME}`. Braces that look like a mistyped placeholder (`{nmae}`, `{%}`)
//! are refused, because the user did not mean to run them as text. `{{` and `}}` stand for single braces.

use crate::columns::{Column, Columns, HeaderLine};
use crate::display::shown;

/// A token of a command, before the columns are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Text(Vec<u8>),
    /// The item's number, from 1.
    Number,
    Item(PathPart),
    /// `{…}`, with the text inside. Its meaning depends on the columns.
    Braces(Vec<u8>, Meaning),
}

/// The possible meanings of braces if the input has columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// They must name a column.
    Column,
    /// A column if one has this name, else plain text.
    Either,
    /// After a `$`: a shell variable. Refused if a column has the same name.
    Variable,
}

/// A part of a value, read as a path. As in GNU parallel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathPart {
    /// `{}`
    Whole,
    /// `{.}`: without its extension.
    WithoutExtension,
    /// `{/}`: without its folder.
    FileName,
    /// `{//}`: the folder alone.
    Folder,
    /// `{/.}`: without both.
    FileStem,
}

const PATH_PARTS: [(&[u8], PathPart); 4] = [
    (b"/.", PathPart::FileStem),
    (b"//", PathPart::Folder),
    (b".", PathPart::WithoutExtension),
    (b"/", PathPart::FileName),
];

impl PathPart {
    pub(crate) fn take(self, value: &[u8]) -> &[u8] {
        match self {
            Self::Whole => value,
            Self::WithoutExtension => without_extension(value),
            Self::FileName => without_folder(value),
            Self::FileStem => without_extension(without_folder(value)),
            Self::Folder => folder(value),
        }
    }
}

fn without_extension(value: &[u8]) -> &[u8] {
    match value.iter().rposition(|byte| *byte == b'.' || *byte == b'/') {
        Some(at) if value[at] == b'.' => &value[..at],
        _ => value,
    }
}

fn without_folder(value: &[u8]) -> &[u8] {
    let begin = value.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    &value[begin..]
}

/// As `dirname` prints it.
fn folder(value: &[u8]) -> &[u8] {
    let strip = |path: &mut &[u8]| {
        while path.len() > 1 && path.ends_with(b"/") {
            *path = &path[..path.len() - 1];
        }
    };
    let mut path = value;
    strip(&mut path);
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => {
            path = &path[..=at];
            strip(&mut path);
            path
        }
        None => b".",
    }
}

/// The rules for reading a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Syntax<'a> {
    /// The text that stands for the item.
    pub(crate) item: &'a [u8],
    /// Whether the input has columns.
    pub(crate) columns: bool,
}

/// An open brace in a text.
#[derive(PartialEq, Eq)]
enum OpenBrace {
    Single,
    Double,
}

impl Syntax<'_> {
    /// Splits a text into tokens. The error names braces that look like a mistake.
    pub(crate) fn tokens(&self, text: &[u8]) -> Result<Vec<Token>, String> {
        let mut tokens = vec![];
        let mut plain = vec![];
        let mut open = vec![];
        let mut opened = false;
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let placeholder = if !self.item.is_empty() && rest.starts_with(self.item) {
                Some((Token::Item(PathPart::Whole), self.item.len()))
            } else if rest.starts_with(b"{") && !rest.starts_with(b"{{") {
                let before = at.checked_sub(1).map(|before| text[before]);
                self.braces(before, &rest[1..])?
            } else {
                None
            };
            if let Some((token, length)) = placeholder {
                if !plain.is_empty() {
                    tokens.push(Token::Text(std::mem::take(&mut plain)));
                }
                tokens.push(token);
                at += length;
                continue;
            }
            let doubled = if rest.starts_with(b"{{") {
                if open.last() != Some(&OpenBrace::Double) {
                    Self::refuse_template(rest)?;
                }
                open.push(OpenBrace::Double);
                true
            } else if rest.starts_with(b"}}") {
                // It closes a doubled brace, or nothing is open. Else, as in JSON, `}}` closes two single braces.
                let ends = open.last() == Some(&OpenBrace::Double) || !opened;
                open.pop_if(|_| ends);
                ends
            } else {
                false
            };
            if !doubled {
                match rest[0] {
                    b'{' => open.push(OpenBrace::Single),
                    b'}' => drop(open.pop_if(|open| *open == OpenBrace::Single)),
                    _ => {}
                }
            }
            opened |= rest[0] == b'{';
            plain.push(rest[0]);
            at += if doubled { 2 } else { 1 };
        }
        if !plain.is_empty() || tokens.is_empty() {
            tokens.push(Token::Text(plain));
        }
        Ok(tokens)
    }

    /// The token of `{…}` and its length; `None` if it is plain text. `text` follows the opening brace.
    fn braces(&self, before: Option<u8>, text: &[u8]) -> Result<Option<(Token, usize)>, String> {
        let Some(length) = text.iter().position(|byte| *byte == b'{' || *byte == b'}') else {
            return Ok(None);
        };
        let inside = &text[..length];
        if text[length] == b'{' || inside.is_empty() {
            return Ok(None);
        }
        let is_word = is_word(inside);
        if !self.item.is_empty() && contains(inside, self.item) && !(self.columns && is_word) {
            return Ok(None); // Braces around the item.
        }
        let found = |token| Ok(Some((token, length + 2)));
        if inside == b"#" {
            return found(Token::Number);
        }
        if let Some((_, part)) = PATH_PARTS.iter().find(|(text, _)| *text == inside) {
            return found(Token::Item(*part));
        }
        let is_identifier = is_word && !inside.contains(&b'-');
        if before == Some(b'$') && is_identifier {
            let braces = Token::Braces(inside.to_vec(), Meaning::Variable);
            return if self.columns { found(braces) } else { Ok(None) };
        }
        if self.columns {
            let meant = if is_word || is_like_a_placeholder(inside) {
                Meaning::Column
            } else {
                Meaning::Either
            };
            return found(Token::Braces(inside.to_vec(), meant));
        }
        // curl's own: --write-out '%{http_code}'.
        if before == Some(b'%') && is_identifier {
            return Ok(None);
        }
        if is_word || is_like_a_placeholder(inside) {
            Err(self.unknown(inside, None))
        } else {
            Ok(None)
        }
    }

    /// The error for an unknown placeholder, with the known ones.
    pub(crate) fn unknown(&self, inside: &[u8], columns: Option<&Columns>) -> String {
        let written = shown(inside);
        let item = shown(self.item);
        let has = match columns {
            Some(columns) => {
                format!("the columns {columns} (by number as well, and as in {{1.}}, {{1/}}), ")
            }
            None => String::new(),
        };
        let lacks = if columns.is_some() { "" } else { "; columns need --csv or --tsv" };
        format!(
            "`{{{written}}}` in the command stands for nothing. There are {has}{item} (the item), {{.}} (without its \
             extension), {{/}} (without its folder), {{//}} (its folder), {{/.}} (without both) and {{#}} (its \
             number){lacks}. If the braces are meant as they are, double them: {{{{{written}}}}}"
        )
    }

    /// Refuses `{{.Name}}`: it may be a template for the command itself, and we would pass on `{.Name}`.
    fn refuse_template(text: &[u8]) -> Result<(), String> {
        let inside = &text[2..];
        let length = inside.iter().position(|byte| *byte == b'{' || *byte == b'}');
        let Some(inside) =
            length.filter(|at| inside[*at..].starts_with(b"}}")).map(|at| &inside[..at])
        else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(inside);
        let names_a_field = |word: &str| {
            let name = word.strip_prefix('.');
            name.is_some_and(|name| !name.starts_with(|first: char| first.is_ascii_digit()))
        };
        let is_placeholder = PATH_PARTS.iter().any(|(part, _)| *part == inside);
        if !is_placeholder && text.split([' ', '(', '|']).any(names_a_field) {
            let written = shown(inside);
            return Err(format!(
                "`{{{{{written}}}}}` in the command: `{{{{` stands for one brace. For a template of the command's \
                 own, double each of them: {{{{{{{{{written}}}}}}}}}"
            ));
        }
        Ok(())
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn is_word(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    text.chars()
        .all(|character| character.is_alphanumeric() || character == '_' || character == '-')
}

/// A word with an ending, as in `{name.}`, or signs that are placeholders in other programs: `{%}`, `{##}`.
fn is_like_a_placeholder(text: &[u8]) -> bool {
    let ending = text.iter().rposition(|byte| !b"./#%+".contains(byte)).map_or(0, |last| last + 1);
    ending < text.len() && is_word(&text[..ending])
}

/// The column names that braces may contain: the whole text, or the text without an ending.
fn names(inside: &[u8]) -> impl Iterator<Item = (&[u8], PathPart)> {
    let part =
        PATH_PARTS.iter().filter_map(|(ending, part)| Some((inside.strip_suffix(*ending)?, *part)));
    std::iter::once((inside, PathPart::Whole)).chain(part).filter(|(name, _)| !name.is_empty())
}

/// The meaning of braces once the columns are known.
pub(crate) enum Resolved {
    Column(usize, PathPart),
    Text(Vec<u8>),
}

impl Syntax<'_> {
    pub(crate) fn resolve(
        &self,
        inside: &[u8],
        meant: Meaning,
        columns: &Columns,
    ) -> Result<Resolved, String> {
        let named = names(inside).find(|(name, _)| columns.has(name));
        let column = |(name, part): (&[u8], PathPart)| {
            let place = columns.place(&Column::parse(name));
            place
                .map(|place| Resolved::Column(place, part))
                .map_err(|what| format!("`{{{}}}` in the command: {what}", shown(inside)))
        };
        let numbered =
            || names(inside).find(|(name, _)| matches!(Column::parse(name), Column::Number(_)));
        let plain = || Resolved::Text([b"{", inside, b"}"].concat());
        let written = shown(inside);
        match meant {
            Meaning::Column => match named.or_else(numbered) {
                Some(named) => column(named),
                None => Err(self.unknown(inside, Some(columns))),
            },
            Meaning::Variable => match named.or_else(numbered) {
                Some(named) if column(named).is_ok() => Err(format!(
                    "`${{{written}}}` in the command may be a variable of the shell's or a column after a dollar. \
                     For the variable, double the braces: ${{{{{written}}}}}. For the column, give \
                     {{{written}}} as an argument of its own"
                )),
                _ => Ok(plain()),
            },
            Meaning::Either => match named {
                Some(named) => column(named),
                None => {
                    match std::str::from_utf8(inside).ok().and_then(|name| columns.almost(name)) {
                        Some(almost) => Err(format!(
                            "`{{{written}}}` in the command is no column, but {almost} is. If the braces are meant \
                         as they are, double them: {{{{{written}}}}}"
                        )),
                        None => Ok(plain()),
                    }
                }
            },
        }
    }
}

/// Whether the tokens need a header: they do if one names a column.
pub(crate) fn header<'a>(tokens: impl Iterator<Item = &'a Token>) -> HeaderLine {
    let mut maybe = vec![];
    for token in tokens {
        match token {
            Token::Braces(inside, Meaning::Column)
                if names(inside).all(|(name, _)| Column::parse(name).is_name()) =>
            {
                return HeaderLine::Yes;
            }
            Token::Braces(inside, Meaning::Either) => {
                maybe.extend(names(inside).map(|(name, _)| name.to_vec()));
            }
            _ => {}
        }
    }
    if maybe.is_empty() { HeaderLine::No } else { HeaderLine::IfItHas(maybe) }
}
