//! How far long work is, on standard error, where people look.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Events, of a number that is set when it is known.
pub fn events(message: &'static str) -> anyhow::Result<ProgressBar> {
    bar(message, "{msg} {wide_bar} {human_pos}/{human_len} events, {eta} left")
}

/// Other things, of a number that is set when it is known.
pub fn pieces(message: &'static str) -> anyhow::Result<ProgressBar> {
    bar(message, "{msg} {wide_bar} {human_pos}/{human_len}, {eta} left")
}

/// Events whose number nobody knows.
pub fn endless(message: &'static str) -> anyhow::Result<ProgressBar> {
    bar(message, "{msg} {human_pos} events {spinner}")
}

fn bar(message: &'static str, template: &str) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template)?);
    bar.set_message(message);
    Ok(bar)
}
