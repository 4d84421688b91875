//! How much SQL is read at all: text, tokens, brackets, and what one statement may be.
//!
//! DataFusion and its parser recurse, so whatever makes them deep is bounded before they see it; the rest of planning
//! runs on a thread with a stack for the worst that these limits let through.

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::{Spanned, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::error::{Place, QueryError, Refusal};

/// Bytes of SQL.
const MAX_BYTES: usize = 64 * 1024;
/// Tokens, spaces and comments left out.
const MAX_TOKENS: usize = 8 * 1024;
/// Brackets inside brackets.
const MAX_BRACKETS: usize = 32;
/// Levels that the parser may go down; some levels of brackets take several.
const MAX_PARSER_DEPTH: usize = 256;
/// Levels of an expression, after what it refers to in inner SELECTs is put in its place.
pub(super) const MAX_DEPTH: usize = 256;
/// Parts of all expressions, after what they refer to in inner SELECTs is put in its place.
pub(super) const MAX_PARTS: usize = 20_000;
/// Stack of the thread that plans; only what is touched is ever backed by memory.
const PLANNING_STACK_BYTES: usize = 256 * 1024 * 1024;

/// Mentions of sources, those in inner SELECTs as often as they are read.
pub(super) const MAX_MENTIONS: usize = 16;

/// Runs `plan` where there is stack enough for the worst that the limits let through.
pub(super) fn on_planning_thread<T: Send>(output: &str, plan: impl FnOnce() -> T + Send) -> Result<T, QueryError> {
    let thread = std::thread::Builder::new().name("plan-sql".to_owned()).stack_size(PLANNING_STACK_BYTES);
    std::thread::scope(|scope| match thread.spawn_scoped(scope, plan) {
        Ok(planning) => planning.join().map_err(|_| {
            let panicked = DataFusionError::Plan("DataFusion's planner panicked".to_owned());
            QueryError::Plan { output: output.to_owned(), place: None, source: Box::new(panicked) }
        }),
        Err(source) => Err(QueryError::NoThread { output: output.to_owned(), source }),
    })
}

/// Why the text is not one statement.
pub(super) enum ParseFailure {
    /// Outside the limits, or not one query.
    Refused(Refusal),
    /// Not SQL.
    Syntax(Option<Place>, ParserError),
}

/// The one query in `sql`.
pub(super) fn parse(sql: &str) -> Result<Statement, ParseFailure> {
    let tokens = tokens(sql)?;
    shape(&tokens).map_err(ParseFailure::Refused)?;
    let mut parser =
        Parser::new(&GenericDialect {}).with_recursion_limit(MAX_PARSER_DEPTH).with_tokens_with_locations(tokens);
    let parsed = parser.parse_statements();
    let mut statements = parsed.map_err(|error| {
        let place = Place::of(parser.peek_token_ref().span.start);
        ParseFailure::Syntax(place, error)
    })?;
    if let Some(second) = statements.get(1) {
        return Err(ParseFailure::Refused(Refusal::new(
            Place::of(second.span().start),
            "there is more than one statement",
            "keep the first SELECT only",
        )));
    }
    match statements.pop() {
        Some(query @ Statement::Query(_)) => Ok(query),
        _ => Err(ParseFailure::Refused(not_a_query(None, "this"))),
    }
}

fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>, ParseFailure> {
    if sql.len() > MAX_BYTES {
        let what = format!("the SQL has {} bytes, more than {MAX_BYTES}", sql.len());
        return Err(ParseFailure::Refused(Refusal::new(None, what, "write it shorter")));
    }
    let dialect = GenericDialect {};
    let mut tokens = Vec::new();
    Tokenizer::new(&dialect, sql)
        .tokenize_with_location_into_buf(&mut tokens)
        .map_err(|error| ParseFailure::Syntax(Place::of(error.location), ParserError::TokenizerError(error.message)))?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    Ok(tokens)
}

fn shape(tokens: &[TokenWithSpan]) -> Result<(), Refusal> {
    if tokens.len() > MAX_TOKENS {
        let what = format!("the SQL has {} words and signs, more than {MAX_TOKENS}", tokens.len());
        return Err(Refusal::new(None, what, "write it shorter"));
    }
    let first = tokens.iter().find(|token| !matches!(token.token, Token::LParen | Token::SemiColon));
    match first.map(|token| (&token.token, token.span.start)) {
        None | Some((Token::EOF, _)) => return Err(not_a_query(None, "an empty text")),
        Some((Token::Word(word), place)) if !is_query_word(&word.value) => {
            return Err(not_a_query(Place::of(place), &word.value.to_uppercase()));
        }
        Some(_) => {}
    }
    let mut open = 0_usize;
    for token in tokens {
        match token.token {
            Token::LParen | Token::LBracket | Token::LBrace => open += 1,
            Token::RParen | Token::RBracket | Token::RBrace => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_BRACKETS {
            let what = format!("brackets are nested more than {MAX_BRACKETS} deep");
            return Err(Refusal::new(Place::of(token.span.start), what, "take some apart"));
        }
    }
    Ok(())
}

fn is_query_word(word: &str) -> bool {
    word.eq_ignore_ascii_case("select") || word.eq_ignore_ascii_case("with")
}

fn not_a_query(place: Option<Place>, found: &str) -> Refusal {
    Refusal::new(place, format!("{found} is not a query"), "write one SELECT over a source")
}
