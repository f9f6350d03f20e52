//! Sources as thin as the analyzer can do with: no comments, and functions without what is in them.
//!
//! To find a variable's type the analyzer needs to know what a function takes and returns, not how. Two thirds of the
//! standard library's text and half of `tch`'s are comments and bodies, which it would parse, many of them several times, at every
//! kernel's start. What is computed while compiling (`const fn`) keeps its body, and so does what returns `impl …`, whose
//! type stands in the body alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ra_ap_rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};

use crate::machine::layout::Layout;

/// What stands for a body: it fits every type.
const NOTHING: &str = "{loop{}}";
/// Attributes that do not change a type. `doc` is one only when it has a value: `#[doc(hidden)]` stays.
const NO_TYPE: [&str; 3] = ["inline", "must_use", "doc"];
/// The kinds of what a macro matches (`$name:kind`).
const FRAGMENTS: [&str; 15] = [
    "block",
    "expr",
    "expr_2021",
    "ident",
    "item",
    "lifetime",
    "literal",
    "meta",
    "pat",
    "pat_param",
    "path",
    "stmt",
    "tt",
    "ty",
    "vis",
];
/// Where the thin copies of the crates that notebooks see are kept.
pub fn crates(layout: &Layout) -> PathBuf {
    layout.kernel().join(format!("crates-{FORM}"))
}

/// Counts up when the same source comes out in another form.
pub const FORM: u32 = 3;
/// Folders that are not part of a library.
const NO_LIBRARY: [&str; 3] = ["tests", "benches", "examples"];

/// Writes the thin sources of a crate's folder into another folder.
///
/// # Errors
/// If a file cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name();
        if source.is_dir() {
            if !NO_LIBRARY.iter().any(|other| name == *other) {
                copy(&source, &target)?;
            }
        } else if source.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&source)
                .with_context(|| format!("cannot read {}", source.display()))?;
            fs::write(&target, thinned(&text))
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

/// A source without comments and bodies. What is no Rust comes out as something that is no Rust either.
pub fn thinned(source: &str) -> String {
    let tokens = tokens(source);
    let mut thin = String::with_capacity(source.len() / 2);
    let mut next = 0;
    while let Some(token) = tokens.get(next) {
        if let Some(end) = attribute(&tokens, next) {
            next = end;
            continue;
        }
        if let Some((open, end)) = body(&tokens, next) {
            tokens[next..open]
                .iter()
                .for_each(|token| push(&mut thin, token));
            thin.push_str(NOTHING);
            next = end;
            continue;
        }
        push(&mut thin, token);
        next += 1;
    }
    thin
}

/// Adds a token; two words, or two signs that would make one (`& &`), stay apart as they were.
fn push(text: &mut String, token: &Token<'_>) {
    if token.after_space && !text.is_empty() {
        text.push(if token.new_line { '\n' } else { ' ' });
    }
    text.push_str(token.text);
}

/// Behind an attribute that begins here and says nothing about types.
fn attribute(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let text = |index: usize| tokens.get(index).map(|token| token.text);
    // In a macro `$(#[doc = $x:literal])*` must not become `$()*`.
    let repeated = at >= 2 && text(at - 1) == Some("(") && text(at - 2) == Some("$");
    if text(at) != Some("#") || repeated {
        return None;
    }
    let open = at + 1 + usize::from(text(at + 1) == Some("!"));
    let name = text(open + 1)?;
    let ours = text(open) == Some("[")
        && NO_TYPE.contains(&name)
        && (name != "doc" || text(open + 2) == Some("="));
    ours.then(|| behind(tokens, open))
}

/// The body of a function that begins here: its first token, and behind its last. None for what has none, or must keep it.
fn body(tokens: &[Token<'_>], at: usize) -> Option<(usize, usize)> {
    let before = &tokens[at.saturating_sub(4)..at];
    // Without a name it is a type (`fn(u8)`).
    let named = tokens.get(at + 1)?.text != "(";
    if tokens[at].text != "fn" || !named || before.iter().any(|token| token.text == "const") {
        return None;
    }
    let mut open = at + 1;
    loop {
        match tokens.get(open)?.text {
            "{" => break,
            "(" | "[" => open = behind(tokens, open),
            // A declaration, or an opaque type.
            ";" | "}" | ")" | "]" | "impl" => return None,
            _ => open += 1,
        }
    }
    let end = behind(tokens, open);
    // A value among the types (`Simd<u8, {N}>`) looks like a body.
    let among_types = tokens
        .get(end)
        .is_some_and(|next| [">", ","].contains(&next.text));
    // What a macro matches must go on to match.
    let pattern = tokens[open..end].windows(4).any(|four| {
        four[0].text == "$" && four[2].text == ":" && FRAGMENTS.contains(&four[3].text)
    });
    (!among_types && !pattern).then_some((open, end))
}

/// Behind the bracket that closes the one at `open`.
fn behind(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// A word, a literal or a sign.
struct Token<'a> {
    text: &'a str,
    after_space: bool,
    new_line: bool,
}

/// What rustc's own lexer finds, without space and comments.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    let (mut after_space, mut new_line) = (false, false);
    for token in tokenize(source, FrontmatterAllowed::No) {
        let (text, behind) = rest.split_at(token.len as usize);
        rest = behind;
        match token.kind {
            TokenKind::Whitespace
            | TokenKind::LineComment { .. }
            | TokenKind::BlockComment { .. } => {
                after_space = true;
                new_line |= text.contains('\n');
            }
            _ => {
                found.push(Token {
                    text,
                    after_space,
                    new_line,
                });
                (after_space, new_line) = (false, false);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_go_and_signatures_stay() {
        let source = "/// Adds.\n#[inline]\n#[must_use = \"yes\"]\npub fn add<'a>(x: &'a [u8; 3]) -> Vec<u8> where T: Into<A = u8, B>, {\n  if x == b\"}\" { '}' } // }\n}\nfn b();";
        assert_eq!(
            thinned(source),
            "pub fn add<'a>(x: &'a [u8; 3]) -> Vec<u8> where T: Into<A = u8, B>,{loop{}}\nfn b();"
        );
    }

    #[test]
    fn what_a_type_may_depend_on_stays() {
        for source in [
            "pub const fn three() -> usize { 3 }",
            "pub const unsafe extern fn three() -> usize { 3 }",
            "fn all() -> impl Iterator<Item = u8> { [1].into_iter() }",
            "type F = fn(u8) -> u8; struct A { f: fn(), g: u8 }",
            "fn wide() -> Simd<u8, {N}> { todo!() }",
            "struct A<F = fn()> { f: F }",
            "static S: &str = r#\"fn a() { // \"# ;",
            "#[doc(hidden)] struct B;",
            "($(#[doc = $x:literal])* $name:ident) => { $(#[doc = $x])* struct $name; }",
            "macro_rules! m { (fn $name:ident() { $($body:tt)* }) => {}; }",
            "let c = '\\''; let l: &'static str = \"\\\"//\";",
        ] {
            assert_eq!(thinned(source), source);
        }
    }

    #[test]
    fn comments_in_comments_and_attributes_that_are_texts() {
        assert_eq!(thinned("a /* b /* c */ d */ e"), "a e");
        assert_eq!(
            thinned("#![doc = include_str!(\"x.md\")]\n#[doc = concat!(\"[\", \"a\")] struct A;"),
            "struct A;"
        );
        assert_eq!(thinned("r#type /*"), "r#type");
    }

    #[test]
    fn half_a_source_does_no_harm() {
        for source in [
            "fn",
            "fn a() {",
            "\"open",
            "'",
            "r#\"open",
            "/*",
            "#[doc =",
            "b'",
            "fn a( -> {",
        ] {
            thinned(source);
        }
    }
}
