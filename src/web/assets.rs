//! Files that are compiled in and served under names that carry their hash.
//!
//! A name changes with its content, so a browser may keep a file for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

/// A compiled-in file.
struct Asset {
    name: String,
    media_type: &'static str,
    bytes: &'static [u8],
}

impl Asset {
    fn new(stem: &str, extension: &str, media_type: &'static str, bytes: &'static [u8]) -> Asset {
        Asset {
            name: format!("{stem}-{:016x}.{extension}", xxh3_64(bytes)),
            media_type,
            bytes,
        }
    }
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let bytes = include_bytes!("../../assets/pulse.css");
    Asset::new("pulse", "css", "text/css; charset=utf-8", bytes)
});
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let bytes = include_bytes!("../../assets/pulse.js");
    Asset::new("pulse", "js", "text/javascript; charset=utf-8", bytes)
});
static LOGO: LazyLock<Asset> = LazyLock::new(|| {
    let bytes = include_bytes!("../../assets/logo.svg");
    Asset::new("logo", "svg", "image/svg+xml", bytes)
});

/// The path of the stylesheet.
pub fn style_path() -> String {
    path(&STYLE)
}

/// The path of the script.
pub fn script_path() -> String {
    path(&SCRIPT)
}

/// The path of the logo, which is also the icon of the tab.
pub fn logo_path() -> String {
    path(&LOGO)
}

fn path(asset: &Asset) -> String {
    format!("/assets/{}", asset.name)
}

/// `GET /assets/{name}`
pub async fn serve(Path(name): Path<String>) -> Response {
    let known: [&Asset; 3] = [&STYLE, &SCRIPT, &LOGO];
    let Some(asset) = known.into_iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(asset.media_type),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=31536000, immutable"),
        ),
    ];
    (headers, asset.bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_with_another_hash_is_not_found() {
        let name = STYLE.name.clone();
        assert_eq!(serve(Path(name)).await.status(), StatusCode::OK);
        let other = Path("pulse-0000000000000000.css".to_owned());
        assert_eq!(serve(other).await.status(), StatusCode::NOT_FOUND);
    }
}
