//! The attribute `#[filter]` of `myelin-filter`. Use it from there.
//!
//! It reads one item's name, so it does without a parser crate: that keeps `cargo test` of a filter quick.

use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

/// Makes a type the filter of its crate: names it after the package and exports it from the component.
///
/// `#[filter(name = .., version = ..)]` says otherwise; both take a constant expression of type `&'static str`.
#[proc_macro_attribute]
pub fn filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    match expand(arguments, &item) {
        // The item stays as it was written; a fault is reported beside it, so that it does not hide the type.
        Ok(glue) => [item, glue].into_iter().collect(),
        Err((message, span)) => [item, compile_error(&message, span)].into_iter().collect(),
    }
}

type Fault = (String, Span);

/// What stands behind the item.
fn expand(arguments: TokenStream, item: &TokenStream) -> Result<TokenStream, Fault> {
    let ident = type_name(item)?;
    let (mut name, mut version) = (None, None);
    for (key, value) in key_values(arguments)? {
        match key.to_string().as_str() {
            "name" => name = Some(value),
            "version" => version = Some(value),
            other => return Err((format!("`{other}` is not known here; write `name` or `version`"), key.span())),
        }
    }
    let name = name.unwrap_or_else(|| template("env!(\"CARGO_PKG_NAME\")"));
    let version = version.unwrap_or_else(|| template("env!(\"CARGO_PKG_VERSION\")"));
    let glue = template("::myelin_filter::__export! { __TYPE__, __NAME__, __VERSION__ }");
    Ok(substitute(glue, &|word| match word {
        "__TYPE__" => Some(TokenTree::Ident(ident.clone()).into()),
        "__NAME__" => Some(name.clone()),
        "__VERSION__" => Some(version.clone()),
        _ => None,
    }))
}

/// The name of the struct or enum; generic ones are refused, because the component exports one concrete type.
fn type_name(item: &TokenStream) -> Result<Ident, Fault> {
    let mut tokens = item.clone().into_iter();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(word) = &token else { continue };
        if !matches!(word.to_string().as_str(), "struct" | "enum") {
            continue;
        }
        let Some(TokenTree::Ident(name)) = tokens.next() else { break };
        if matches!(tokens.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == '<') {
            return Err((format!("`{name}` is generic; a filter is one concrete type"), name.span()));
        }
        return Ok(name);
    }
    Err(("#[filter] belongs above a struct or an enum".to_owned(), Span::call_site()))
}

/// Splits `key = expression, ..`.
fn key_values(arguments: TokenStream) -> Result<Vec<(Ident, TokenStream)>, Fault> {
    let mut tokens = arguments.into_iter().peekable();
    let mut pairs = Vec::new();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(key) = token else {
            return Err(("write `#[filter]` or `#[filter(name = .., version = ..)]`".to_owned(), token.span()));
        };
        if !matches!(tokens.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == '=') {
            return Err((format!("`{key}` needs a value: `{key} = \"..\"`"), key.span()));
        }
        let mut value = TokenStream::new();
        for token in tokens.by_ref() {
            if matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',') {
                break;
            }
            value.extend([token]);
        }
        if value.is_empty() {
            return Err((format!("`{key}` needs a value: `{key} = \"..\"`"), key.span()));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// Tokens of source text that stands in this file.
fn template(source: &str) -> TokenStream {
    source.parse().expect("the templates of this file are valid Rust tokens")
}

/// Replaces placeholder words, also inside of groups.
fn substitute(tokens: TokenStream, value_of: &dyn Fn(&str) -> Option<TokenStream>) -> TokenStream {
    let replace = |token: TokenTree| match token {
        TokenTree::Ident(word) => value_of(&word.to_string()).unwrap_or_else(|| TokenTree::Ident(word).into()),
        TokenTree::Group(group) => {
            TokenTree::Group(Group::new(group.delimiter(), substitute(group.stream(), value_of))).into()
        }
        other => other.into(),
    };
    tokens.into_iter().map(replace).collect()
}

fn compile_error(message: &str, span: Span) -> TokenStream {
    let call = template("::core::compile_error!");
    let text = TokenTree::Literal(proc_macro::Literal::string(message));
    let arguments = TokenTree::Group(Group::new(Delimiter::Brace, text.into()));
    let tokens = call.into_iter().chain([arguments]);
    tokens
        .map(|mut token| {
            token.set_span(span);
            token
        })
        .collect()
}
