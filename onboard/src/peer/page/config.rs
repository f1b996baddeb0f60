//! The `page` sink of the config.

use serde::{Deserialize, Serialize};

use super::write::PageServer;
use crate::config::{Checker, Config, TilesConfig};
use crate::peer::Playback;
use crate::port::{Connection, Interests, Peer, PeerError};

/// A page for a browser: map, track, heatmap, camera, state and the health of every part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageConfig {
    /// Where to listen, host:port. Whoever reaches it sees where the vehicle is. Default
    /// "127.0.0.1:8470": this machine only.
    pub listen: String,
    /// Names under which browsers may ask for it, beside IP addresses, "localhost" and the host of
    /// `listen`. Others are refused, so that a foreign web page cannot read it through a name of its own.
    /// Default: none.
    pub hosts: Vec<String>,
    /// Whether frames of the camera are shown. Default true.
    pub camera: bool,
    /// Camera frames and heatmaps are encoded at most so many times a second, and only when a browser
    /// asks for one. Default 2.
    pub pictures_hz: f64,
    /// Connections at a time; the oldest gives way to a new one. A browser opens up to six. Default 24.
    pub max_clients: usize,
    /// The tile set of the config.
    #[serde(skip)]
    pub(super) tiles: Option<TilesConfig>,
}

impl Default for PageConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8470".into(),
            hosts: Vec::new(),
            camera: true,
            pictures_hz: 2.0,
            max_clients: 24,
            tiles: None,
        }
    }
}

impl Peer for PageConfig {
    fn name(&self) -> &'static str {
        "page"
    }

    fn wants(&self) -> Interests {
        let always =
            Interests::FIXES | Interests::MATCHES | Interests::ESTIMATES | Interests::HEALTH;
        if self.camera {
            always | Interests::FRAMES
        } else {
            always
        }
    }

    fn set_up(&mut self, config: &Config) {
        self.tiles.clone_from(&config.tiles);
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        PageServer::open(self).map(Connection::writer)
    }

    fn listens(&self) -> Option<&str> {
        Some(&self.listen)
    }

    fn check(&self, check: &mut Checker) {
        check.address("listen", &self.listen);
        check.range("pictures_hz", self.pictures_hz, 0.1, 10.0);
        check.range("max_clients", self.max_clients as f64, 6.0, 256.0);
        for (index, host) in self.hosts.iter().enumerate() {
            let letters = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
            if host.is_empty() || !host.chars().all(letters) {
                check.problem(
                    &format!("hosts[{index}]"),
                    format!("{host:?} is not a host name; write it without scheme and port, such as \"vehicle.local\""),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_right_is_named_with_its_field() {
        let text = "[[sink]]\nkind = \"page\"\nlisten = \"everywhere\"\nhosts = [\"http://vehicle:8470\"]\n\
                    pictures_hz = 100\nmax_clients = 1\n";
        let problems = Config::parse(text).unwrap().check();
        let fields: Vec<_> = problems
            .iter()
            .map(|problem| problem.field.as_str())
            .collect();
        for field in ["listen", "hosts[0]", "pictures_hz", "max_clients"] {
            let field = format!("sink[0].{field}");
            assert!(fields.contains(&field.as_str()), "{field} in {fields:?}");
        }
        assert!(Config::parse("[[sink]]\nkind = \"page\"\nport = 1\n").is_err());
        let good = "[[sink]]\nkind = \"page\"\nhosts = [\"vehicle.local\"]\n";
        assert_eq!(Config::parse(good).unwrap().check(), []);
    }

    #[test]
    fn nobody_beyond_this_machine_reaches_it_unless_the_config_says_so() {
        let listen = PageConfig::default().listen;
        let address: std::net::SocketAddr = listen.parse().unwrap();
        assert!(address.ip().is_loopback());
        assert_eq!(Config::default().sink, [], "and it is off by default");
    }
}
