//! HTML that a script makes interactive.

pub(crate) const STYLE: &str = include_str!("../assets/explorer.css");

/// A still picture, and a script that puts something interactive in its place, made of these data.
///
/// Where scripts do not run (a notebook that is not trusted, a page on a code host), the still picture
/// stays.
pub(crate) fn interactive(attributes: &str, still: &str, data: &str, script: &str) -> String {
    // Within a script nothing may look like its end.
    let data = data.replace("</", "<\\/");
    format!(
        "<div class=\"explorer\"{attributes}><style>{STYLE}</style><div class=\"still\">{still}</div>\
         <script type=\"application/json\">{data}</script><script>{script}</script></div>"
    )
}
