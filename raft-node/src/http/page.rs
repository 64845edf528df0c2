//! The page: one file, without anything from elsewhere, which shows what [`super::live`] sends.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use axum::response::{Html, IntoResponse, Response};

const PAGE: &str = include_str!("page.html");
/// Where the page has the number that its own script and style are known by.
const PLACE: &str = "NONCE";

/// The page, under a policy by which nothing runs in it that it did not bring along.
pub(super) fn page() -> Response {
    let mut random = [0u8; 16];
    if getrandom::fill(&mut random).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let nonce = farm_view::hex(&random);
    let headers = [(CONTENT_SECURITY_POLICY, policy(&nonce)), (REFERRER_POLICY, "no-referrer".to_owned())];
    (headers, Html(PAGE.replace(PLACE, &nonce))).into_response()
}

/// Content Security Policy Level 3: everything is forbidden but this script, this style, and to ask this node.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_all_it_needs_and_writes_no_markup() {
        for elsewhere in ["http://", "https://", "src=", "href=", "@import", "url("] {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=\""]
        {
            assert!(!PAGE.contains(markup), "{markup}: names and sentences are text");
        }
        assert_eq!(PAGE.matches("nonce=\"NONCE\"").count(), PAGE.matches(PLACE).count());
        assert_eq!(
            PAGE.matches("<script").count() + PAGE.matches("<style").count(),
            PAGE.matches(PLACE).count()
        );
    }

    #[test]
    fn each_answer_has_a_number_of_its_own() {
        let policy =
            |answer: Response| answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let (one, two) = (policy(page()), policy(page()));
        assert!(one.starts_with("default-src 'none'; script-src 'nonce-") && one != two, "{one}");
    }
}
