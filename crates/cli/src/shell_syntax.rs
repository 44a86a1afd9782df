//! Checks that each placeholder in a shell text is where the shell expects a word.
//!
//! We insert an item as one quoted word. Inside of the user's own quotes, the item's quotes would close them and
//! the shell would run the item as code. So a placeholder is refused wherever the shell does not read words: in
//! quotes, backticks, here-documents, arithmetic and comments, and after a backslash or a dollar.
//!
//! Shells differ in two points: `$'…'`, and a `)` of `case` inside of `$(…)`. We read the text in every way, and
//! accept a placeholder only if all of them do.

/// A segment of a shell text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Segment<'a> {
    Text(&'a [u8]),
    /// A placeholder: an item or a field is inserted here.
    Value,
}

/// Refuses a text with a placeholder where no word can be.
pub(crate) fn check<'a>(segments: impl Iterator<Item = Segment<'a>>) -> Result<(), String> {
    let mut text = vec![];
    for segment in segments {
        match segment {
            Segment::Text(bytes) => text.extend(bytes.iter().copied().map(Some)),
            Segment::Value => text.push(None),
        }
    }
    for dollar_quotes in [false, true] {
        for case in [false, true] {
            let mut scan = Scan { text: &text, dollar_quotes, case, ..Scan::default() };
            scan.words(Until::TheEnd);
            if let Some(place) = scan.wrong {
                return Err(format!(
                    "under --shell a placeholder stands {place}. An item is quoted already, so leave the quotes away \
                     where it stands, as in  --shell -- 'grep -c {{}} *.log';  inside of a text, end the quotes \
                     before it, as in  \"to \"{{}}\" and back\",  or go by a variable, as in  x={{}}; echo \"to $x\""
                ));
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    TheEnd,
    /// The `)` of `$(`, or of a subshell.
    Parenthesis,
    /// The `}` of `${`.
    Brace,
}

/// The text and the position in it; `None` is a placeholder.
#[derive(Default)]
struct Scan<'a> {
    text: &'a [Option<u8>],
    at: usize,
    /// The here-documents that begin on the next line: the terminator of each, and whether leading tabs are
    /// stripped.
    here_documents: Vec<(Vec<u8>, bool)>,
    /// The context of the first placeholder that is not where a word can be.
    wrong: Option<&'static str>,
    /// The shell reads `$'…'` as a quoted text with backslash escapes.
    dollar_quotes: bool,
    /// The shell lets a `)` between `case` and `esac` close nothing.
    case: bool,
}

const IN_SINGLE: &str = "inside of single quotes";
const IN_DOUBLE: &str = "inside of double quotes";
const IN_BACKTICKS: &str = "inside of backticks (take $(…))";
const IN_HERE_DOCUMENT: &str = "in a here-document (take printf '%s\\n' {} | …)";
const IN_ARITHMETIC: &str = "in arithmetic";
const IN_COMMENT: &str = "in a comment";
const AFTER_BACKSLASH: &str = "right after a backslash";
const AFTER_DOLLAR: &str = "right after a dollar sign";

impl Scan<'_> {
    fn is(&self, ahead: usize, byte: u8) -> bool {
        self.text.get(self.at + ahead) == Some(&Some(byte))
    }

    fn value(&self, ahead: usize) -> bool {
        self.text.get(self.at + ahead) == Some(&None)
    }

    /// Takes the next byte, or a placeholder.
    fn step(&mut self, place: Option<&'static str>) {
        if let (true, Some(place)) = (self.value(0), place) {
            self.wrong.get_or_insert(place);
        }
        self.at += 1;
    }

    fn ended(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Reads words, up to the end of this context.
    fn words(&mut self, until: Until) {
        let mut at_word_start = until != Until::Brace;
        let mut cases = 0_u32;
        while !self.ended() {
            let was_start = std::mem::take(&mut at_word_start);
            let Some(byte) = self.text[self.at] else {
                self.at += 1;
                continue;
            };
            match byte {
                b'\\' => {
                    self.at += 1;
                    self.step(Some(AFTER_BACKSLASH));
                }
                b'\'' => self.quoted(1, b'\'', false, IN_SINGLE),
                b'"' => self.double(),
                b'`' => self.quoted(1, b'`', true, IN_BACKTICKS),
                b'$' => self.dollar(None),
                b'<' if self.is(1, b'<') && until != Until::Brace => self.here_document(),
                b'#' if was_start => {
                    while !self.ended() && !self.is(0, b'\n') {
                        self.step(Some(IN_COMMENT));
                    }
                }
                b'}' if until == Until::Brace => {
                    self.at += 1;
                    return;
                }
                b'(' if until != Until::Brace => {
                    self.at += 1;
                    self.words(Until::Parenthesis);
                }
                b')' => {
                    self.at += 1;
                    at_word_start = true;
                    if until == Until::Parenthesis && cases == 0 {
                        return;
                    }
                }
                b'\n' => {
                    self.at += 1;
                    self.here_document_texts();
                    at_word_start = true;
                }
                b' ' | b'\t' | b';' | b'&' | b'|' => {
                    self.at += 1;
                    at_word_start = true;
                }
                _ => {
                    if was_start && self.case && self.word_is(b"case") {
                        cases += 1;
                    } else if was_start && self.word_is(b"esac") {
                        cases = cases.saturating_sub(1);
                    }
                    self.at += 1;
                }
            }
        }
    }

    fn word_is(&self, word: &[u8]) -> bool {
        let here = word.iter().enumerate().all(|(ahead, byte)| self.is(ahead, *byte));
        let next = self.text.get(self.at + word.len());
        here && next.is_none_or(|next| next.is_some_and(|byte| !byte.is_ascii_alphanumeric()))
    }

    /// Skips `skip` bytes, then reads quoted text up to its end.
    fn quoted(&mut self, skip: usize, end: u8, backslashes: bool, place: &'static str) {
        self.at += skip;
        while !self.ended() && !self.is(0, end) {
            if backslashes && self.is(0, b'\\') {
                self.at += 1;
            }
            self.step(Some(place));
        }
        self.at += 1;
    }

    fn double(&mut self) {
        self.at += 1;
        while !self.ended() && !self.is(0, b'"') {
            match self.text[self.at] {
                Some(b'\\') => {
                    self.at += 1;
                    self.step(Some(IN_DOUBLE));
                }
                Some(b'$') => self.dollar(Some(IN_DOUBLE)),
                Some(b'`') => self.quoted(1, b'`', true, IN_BACKTICKS),
                _ => self.step(Some(IN_DOUBLE)),
            }
        }
        self.at += 1;
    }

    /// Reads an expansion that begins with `$`. `quotes` is the surrounding context, if it is not words.
    fn dollar(&mut self, quotes: Option<&'static str>) {
        if self.is(1, b'(') && self.is(2, b'(') {
            self.at += 3;
            self.arithmetic();
        } else if self.is(1, b'(') {
            // Quoting starts fresh inside of it.
            self.at += 2;
            self.words(Until::Parenthesis);
        } else if self.is(1, b'{') {
            self.at += 2;
            match quotes {
                None => self.words(Until::Brace),
                Some(place) => self.quoted_braces(place),
            }
        } else if self.is(1, b'\'') && quotes.is_none() && self.dollar_quotes {
            self.quoted(2, b'\'', true, IN_SINGLE);
        } else if self.value(1) {
            self.at += 1;
            self.step(Some(quotes.unwrap_or(AFTER_DOLLAR)));
        } else {
            self.at += 1;
            if self.is(0, b'#') || self.is(0, b'$') && !self.value(1) {
                self.at += 1; // `$#` is no comment, `$$` is whole.
            }
        }
    }

    /// Reads `${…}` inside of quotes.
    fn quoted_braces(&mut self, place: &'static str) {
        while !self.ended() && !self.is(0, b'}') {
            match self.text[self.at] {
                Some(b'\\') => {
                    self.at += 1;
                    self.step(Some(place));
                }
                Some(b'$') => self.dollar(Some(place)),
                Some(b'"') => self.double(),
                Some(b'`') => self.quoted(1, b'`', true, IN_BACKTICKS),
                _ => self.step(Some(place)),
            }
        }
        self.at += 1;
    }

    fn arithmetic(&mut self) {
        let mut depth = 2_u32;
        while !self.ended() && depth > 0 {
            if self.is(0, b'(') {
                depth += 1;
            } else if self.is(0, b')') {
                depth -= 1;
            }
            self.step(Some(IN_ARITHMETIC));
        }
    }

    /// Reads `<<WORD`, the terminator of the here-document that begins on the next line.
    fn here_document(&mut self) {
        if self.is(2, b'<') {
            self.at += 3; // `<<<` takes a word.
            return;
        }
        self.at += 2;
        let tabs = self.is(0, b'-');
        self.at += usize::from(tabs);
        while self.is(0, b' ') || self.is(0, b'\t') {
            self.at += 1;
        }
        let mut word = vec![];
        while !self.ended()
            && !matches!(self.text[self.at], Some(byte) if b" \t\n;&|()<>".contains(&byte))
        {
            // Quotes are not part of the terminator. (A quoted blank would be; that is not supported.)
            word.extend(self.text[self.at].filter(|byte| !b"'\"\\".contains(byte)));
            self.step(Some(IN_HERE_DOCUMENT));
        }
        self.here_documents.push((word, tabs));
    }

    fn here_document_texts(&mut self) {
        for (end, tabs) in std::mem::take(&mut self.here_documents) {
            while !self.ended() {
                let begin = self.at;
                while !self.ended() && !self.is(0, b'\n') {
                    self.step(Some(IN_HERE_DOCUMENT));
                }
                let line = self.text[begin..self.at].iter().map(|byte| byte.unwrap_or_default());
                let line: Vec<u8> = line.skip_while(|byte| tabs && *byte == b'\t').collect();
                self.at += 1;
                if line == end {
                    break;
                }
            }
        }
    }
}
