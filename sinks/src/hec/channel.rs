//! Channels: acknowledgements belong to one, and their numbers begin anew in each collector and each of its lives.

use reqwest::header::{HeaderMap, HeaderValue, SET_COOKIE};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A channel, and what a balancer has it show, so that all its requests come to one collector: no other knows of its
/// acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub id: Uuid,
    cookies: BTreeMap<String, String>,
}

impl Channel {
    pub fn new() -> Self {
        Self { id: Uuid::new_v4(), cookies: BTreeMap::new() }
    }

    /// Takes up the cookies of an answer (RFC 6265, 5.2), without what is said of them: they go back to where they come from, and
    /// no further than the channel.
    pub fn heard(&mut self, headers: &HeaderMap) {
        for cookie in headers.get_all(SET_COOKIE) {
            let pair = cookie.to_str().ok().and_then(|text| text.split(';').next()?.split_once('='));
            if let Some((name, value)) = pair {
                self.cookies.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
    }

    /// As one that no balancer has led anywhere yet. Nothing may be open in it: only the collector that it was led to knows of that.
    pub fn led_nowhere(self) -> Self {
        Self { cookies: BTreeMap::new(), ..self }
    }

    /// `Cookie`, where there are any.
    pub fn cookie(&self) -> Option<HeaderValue> {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        HeaderValue::try_from(pairs.join("; ")).ok().filter(|cookie| !cookie.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_balancer_sets_goes_back_to_it() {
        let mut channel = Channel::new();
        assert_eq!(channel.cookie(), None);
        let mut headers = HeaderMap::new();
        for set in ["AWSALB=a+/=; Expires=Mon, 07 Dec 2026 00:00:00 GMT; Path=/", "other = b", "no cookie"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(set));
        }
        channel.heard(&headers);
        assert_eq!(channel.cookie().unwrap(), "AWSALB=a+/=; other=b");
        headers.clear();
        headers.append(SET_COOKIE, HeaderValue::from_static("other=c; Secure"));
        channel.heard(&headers);
        assert_eq!(channel.cookie().unwrap(), "AWSALB=a+/=; other=c");
        let id = channel.id;
        let channel = channel.led_nowhere();
        assert_eq!((channel.id, channel.cookie()), (id, None));
    }
}
