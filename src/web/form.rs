//! Forms that change something: only our own pages may send them.
//!
//! Three locks, each enough alone. Requests that another site started are refused by
//! their `Origin` before they get here. The page that shows a form sets a cookie that
//! the browser sends along on our own pages only. And the form carries a token, which
//! is the cookie under a key of this process, so that whoever cannot read our pages
//! cannot make it up. A form from before a restart is shown again with what was typed.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;

use super::context::Context;
use super::pages::Request;

const COOKIE: &str = "pulse_form";

/// The name of the field with the token.
pub(crate) const FIELD: &str = "token";

/// What a page with a form needs.
pub(crate) struct Guard {
    /// To stand in the form.
    pub(crate) token: String,
    cookie: String,
    is_new: bool,
}

impl Guard {
    /// For a browser that may have the cookie already.
    pub(crate) fn new(context: &Context, request: &Request) -> Guard {
        let known = request.cookie(COOKIE).filter(|text| is_cookie(text));
        let cookie = known.map_or_else(random, str::to_owned);
        Guard {
            token: token(context, &cookie),
            is_new: known.is_none(),
            cookie,
        }
    }

    /// Adds the cookie to the answer.
    pub(crate) fn dress(&self, mut response: Response) -> Response {
        if self.is_new {
            let text = format!(
                "{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict",
                self.cookie
            );
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().append(header::SET_COOKIE, value);
            }
        }
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Whether a form comes from a page that this process showed to this browser.
pub(crate) fn is_ours(context: &Context, request: &Request, given: &str) -> bool {
    let Some(cookie) = request.cookie(COOKIE).filter(|text| is_cookie(text)) else {
        return false;
    };
    bool::from(token(context, cookie).as_bytes().ct_eq(given.as_bytes()))
}

fn token(context: &Context, cookie: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, context.local.secret());
    hex(hmac::sign(&key, format!("form {cookie}").as_bytes()).as_ref())
}

fn is_cookie(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn random() -> String {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random bytes");
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
