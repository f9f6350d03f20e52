//! HTML that a script makes interactive.

pub(crate) const STYLE: &str = include_str!("../assets/explorer.css");

/// A still picture, and a script that puts something interactive in its place, made of these data.
///
/// Where scripts do not run (a notebook that is not trusted, a page on a code host), the still picture
/// stays.
pub(crate) fn interactive(attributes: &str, still: &str, data: &str, script: &str) -> String {
    // In a script, `</script>` and `<!--` both confuse the parser of HTML. JSON has `<` in strings only.
    let data = data.replace('<', "\\u003c");
    format!(
        "<div class=\"explorer\"{attributes}><style>{STYLE}</style><div class=\"still\">{still}</div>\
         <script type=\"application/json\">{data}</script><script>{script}</script></div>"
    )
}
