//! The columns of the input, and the lookup of a column by number or name.

use std::fmt;

use crate::display::shown;

/// A column, by number (from 1) or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Column {
    Number(usize),
    Name(Vec<u8>),
}

impl Column {
    pub(crate) fn parse(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let digits = text.iter().all(u8::is_ascii_digit);
        match std::str::from_utf8(text).unwrap_or_default().parse() {
            Ok(number @ 1..) if digits => Self::Number(number),
            _ => Self::Name(text.to_vec()),
        }
    }

    pub(crate) fn is_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{{{number}}}"),
            Self::Name(name) => write!(f, "{{{}}}", shown(name)),
        }
    }
}

/// Whether the first record names the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeaderLine {
    No,
    Yes,
    /// Only if one of its fields is one of these names, which the command uses in braces.
    IfItHas(Vec<Vec<u8>>),
}

impl HeaderLine {
    /// Decides whether this first record is a header.
    pub(crate) fn is(&self, first: &csv::ByteRecord) -> bool {
        match self {
            Self::No => false,
            Self::Yes => true,
            Self::IfItHas(names) => {
                first.iter().any(|field| names.iter().any(|name| name == field))
            }
        }
    }
}

/// The columns of the input, known from its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns {
    first: csv::ByteRecord,
    /// Whether the first record names the columns.
    is_header: bool,
}

impl Columns {
    pub(crate) fn new(first: &csv::ByteRecord, is_header: bool) -> Self {
        Self { first: first.clone(), is_header }
    }

    /// The index of a column, from 0. The error says why there is none.
    pub(crate) fn place(&self, column: &Column) -> Result<usize, String> {
        match column {
            Column::Number(number) => {
                let named = self.named(number.to_string().as_bytes());
                let counted = (*number <= self.first.len()).then(|| number - 1);
                match (counted, &named[..]) {
                    (Some(counted), []) => Ok(counted),
                    (Some(counted), [named]) if counted == *named => Ok(counted),
                    (None, [named]) => Ok(*named),
                    (None, []) => Err(self.no(column)),
                    _ => {
                        Err(format!("{column} is one column by its number and another by its name"))
                    }
                }
            }
            Column::Name(name) => match self.named(name)[..] {
                [place] => Ok(place),
                [] => Err(self.no(column)),
                [first, second, ..] => Err(format!(
                    "{column} names more than one column: say {{{}}} or {{{}}}",
                    first + 1,
                    second + 1
                )),
            },
        }
    }

    /// Whether a column has this name.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        !self.named(name).is_empty()
    }

    /// The column with a similar name, for a hint in an error.
    pub(crate) fn almost(&self, name: &str) -> Option<String> {
        let plain = |name: &str| name.to_lowercase().replace([' ', '_', '-'], "");
        let meant = plain(name);
        let near = |column: &&[u8]| {
            let column = plain(&String::from_utf8_lossy(column));
            column == meant || column.len() > 4 && strsim::osa_distance(&column, &meant) < 3
        };
        // Also where nobody declared the first record a header.
        self.first.iter().find(near).map(|name| Column::Name(name.to_vec()).to_string())
    }

    fn named(&self, name: &[u8]) -> Vec<usize> {
        let fields = self.first.iter().enumerate().filter(|_| self.is_header);
        fields.filter(|(_, field)| *field == name).map(|(place, _)| place).collect()
    }

    fn no(&self, column: &Column) -> String {
        let hint = if self.is_header {
            ""
        } else {
            " in the first record (where that names the columns, say --header)"
        };
        format!("there is no column {column}; there are {self}{hint}")
    }
}

/// The placeholders for them, as messages list them: `{name} and {age}`, or `{1} to {7}`.
impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED_MAX: usize = 40;
        let names: Vec<String> = if self.is_header {
            self.first.iter().map(|name| Column::Name(name.to_vec()).to_string()).collect()
        } else {
            (1..=self.first.len()).map(|number| Column::Number(number).to_string()).collect()
        };
        match (&names[..], self.is_header) {
            ([], _) => f.write_str("none"),
            ([only], _) => f.write_str(only),
            ([first, .., last], false) if names.len() > 2 => write!(f, "{first} to {last}"),
            (all, _) if all.len() > NAMED_MAX => {
                write!(f, "{} and {} more", all[..NAMED_MAX].join(", "), all.len() - NAMED_MAX)
            }
            ([others @ .., last], _) => write!(f, "{} and {last}", others.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str], is_header: bool) -> Columns {
        Columns::new(&csv::ByteRecord::from(names.to_vec()), is_header)
    }

    fn place(columns: &Columns, text: &str) -> Result<usize, String> {
        columns.place(&Column::parse(text))
    }

    #[test]
    fn a_column_is_found_by_number_and_by_name() {
        let named = columns(&["url", "first name", "n"], true);
        assert_eq!(place(&named, "1"), Ok(0));
        assert_eq!(place(&named, "first name"), Ok(1));
        assert_eq!(place(&columns(&["a", "b"], false), "2"), Ok(1));
        assert_eq!(place(&columns(&["2023", "2024"], true), "2024"), Ok(1));
        assert_eq!(place(&columns(&["1", "2"], true), "2"), Ok(1));
    }

    #[test]
    fn a_column_that_is_not_there_or_not_the_only_one_is_said_to_be_so() {
        let named = columns(&["url", "n", "n"], true);
        let no = |text| place(&named, text).unwrap_err();
        assert_eq!(no("nope"), "there is no column {nope}; there are {url}, {n} and {n}");
        assert_eq!(no("4"), "there is no column {4}; there are {url}, {n} and {n}");
        assert_eq!(no("n"), "{n} names more than one column: say {2} or {3}");
        assert!(no("0").starts_with("there is no column {0}"));
        let error = place(&columns(&["a", "b", "c"], false), "4").unwrap_err();
        assert!(error.starts_with("there is no column {4}; there are {1} to {3} in the first"));
        let error = place(&columns(&["2", "1"], true), "1").unwrap_err();
        assert!(error.contains("one column by its number and another by its name"), "{error}");
    }

    #[test]
    fn a_name_that_is_almost_one_is_known() {
        let named = columns(&["first name", "url"], true);
        for name in ["first nmae", "First Name", "firstname", "first  name"] {
            assert_eq!(named.almost(name).as_deref(), Some("{first name}"), "{name}");
        }
        for name in ["print NR", "uri", "last name"] {
            assert_eq!(named.almost(name), None, "{name}");
        }
    }
}
