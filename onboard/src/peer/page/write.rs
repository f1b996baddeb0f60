//! Answers browsers with the page, and with what the daemon knows now.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crossfix_calibration::mercator::TileId;
use serde_json::{Value, json};
use tracing::warn;

use super::PageConfig;
use super::document::{Document, PRIVATE};
use super::history::History;
use super::pictures::Pictures;
use crate::pipeline::open_tiles;
use crate::port::{Clients, Outbound, PeerError, Writer};
use crate::tiles::TileStore;
use crate::transport::http::{Answer, HttpServer, Request};
use crate::utc;

/// Requests are looked for at most this often, so that many of them cost little.
const ROUND: Duration = Duration::from_millis(20);

/// Serves the page.
pub struct PageServer {
    server: HttpServer,
    polled: Instant,
    view: View,
}

/// All that answers are made of.
struct View {
    document: Document,
    /// Changes with every start, so that a page which stayed open begins anew.
    session: String,
    hosts: Vec<String>,
    history: History,
    pictures: Pictures,
    tiles: Result<TileStore, String>,
}

impl PageServer {
    /// Listens where the config says.
    pub fn open(config: &PageConfig) -> Result<Self, PeerError> {
        let listener = HttpServer::listen("page", &config.listen)?;
        let tiles = match &config.tiles {
            None => Err("the config has no [tiles]".to_owned()),
            Some(tiles) => open_tiles(tiles).map_err(|error| error.to_string()),
        };
        if let (Err(error), Some(_)) = (&tiles, &config.tiles) {
            warn!(error, "the page shows no aerial tiles");
        }
        let listen_host = config.listen.rsplit_once(':').map(|(host, _)| host);
        let hosts = ["localhost"].into_iter().chain(listen_host);
        let hosts = hosts.map(str::to_owned).chain(config.hosts.clone());
        Ok(Self {
            server: listener.with_room_for(config.max_clients),
            polled: Instant::now(),
            view: View {
                document: Document::new(),
                session: format!("{:x}", utc::now_ns()),
                hosts: hosts.collect(),
                history: History::default(),
                pictures: Pictures::new(Duration::from_secs_f64(1.0 / config.pictures_hz)),
                tiles,
            },
        })
    }
}

impl Writer for PageServer {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        self.view.history.note(outbound, Instant::now());
        self.poll()
    }

    fn poll(&mut self) -> Result<(), PeerError> {
        let now = Instant::now();
        if now.saturating_duration_since(self.polled) >= ROUND {
            self.polled = now;
            self.server.poll(|request| self.view.answer(request, now));
        }
        Ok(())
    }

    fn clients(&self) -> Option<Clients> {
        Some(self.server.count())
    }
}

impl View {
    fn answer(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        let mut answer = if self.is_for_us(request.host) {
            self.found(request, now)
        } else {
            Answer::text(
                "403 Forbidden",
                "this page is asked for by its IP address, or by a name in `hosts` of its config",
            )
        };
        if answer.headers.is_empty() {
            PRIVATE.clone_into(&mut answer.headers);
        }
        answer
    }

    fn found(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        let history = &self.history;
        let picture = match request.path {
            "/" => {
                let html = self.document.html.clone();
                let mut page = Answer::new("200 OK", "text/html; charset=utf-8", html);
                page.headers.clone_from(&self.document.headers);
                return page;
            }
            "/now" => return self.now(request.query, now),
            "/frame.jpg" => history.frame.as_ref().map(|frame| {
                let jpeg = self.pictures.frame(frame, now);
                (jpeg.clone(), "image/jpeg")
            }),
            "/heatmap.png" => history.heatmap.as_ref().map(|found| {
                let mut png = self.pictures.heatmap(found, now).clone();
                let made = self.pictures.heatmap_number();
                // `?SESSION-NUMBER`: the page lays it where that heatmap lies, so another one will not do.
                let asked = request.query.rsplit_once('-');
                let asked: Option<u64> = asked.and_then(|(_, number)| number.parse().ok());
                if asked.is_some() && asked != made {
                    png = Err("the last heatmap is another one".to_owned());
                }
                (png, "image/png")
            }),
            path => {
                let Some(tile) = tile_of(path) else {
                    return Answer::text("404 Not Found", "the page is at /");
                };
                let found = self.tile(tile);
                Some((found, ""))
            }
        };
        match picture {
            Some((Ok(bytes), "")) => Answer::new("200 OK", media_type(&bytes), bytes),
            Some((Ok(bytes), media_type)) => Answer::new("200 OK", media_type, bytes),
            Some((Err(problem), _)) => Answer::text("404 Not Found", &problem),
            None => Answer::text("404 Not Found", "there is none yet"),
        }
    }

    /// Everything as JSON: what the page asks for a few times a second.
    fn now(&self, query: &str, now: Instant) -> Answer {
        let after = query.strip_prefix("after=").unwrap_or("0");
        let Ok(after) = after.parse::<u64>() else {
            return Answer::text("400 Bad Request", "after is not a number");
        };
        let mut value = self.history.json(after, now);
        value["session"] = json!(self.session);
        value["version"] = json!(env!("CARGO_PKG_VERSION"));
        value["tiles"] = self.tiles.as_ref().map_or(Value::Null, |tiles| {
            let manifest = tiles.manifest();
            json!({
                "zoom": manifest.zoom,
                "tile_px": manifest.tile_px,
                "attribution": manifest.attribution,
                "capture_date": manifest.capture_date,
            })
        });
        value["tiles_problem"] = json!(self.tiles.as_ref().err());
        Answer::new("200 OK", "application/json", value.to_string())
    }

    fn tile(&mut self, tile: TileId) -> Result<Vec<u8>, String> {
        let tiles = self.tiles.as_mut().map_err(|error| error.clone())?;
        let side = 1u32 << tile.zoom;
        if tile.zoom != tiles.manifest().zoom || tile.x >= side || tile.y >= side {
            return Err("the tile set has none there".into());
        }
        let bytes = tiles.bytes(tile).map_err(|error| error.to_string())?;
        bytes.ok_or_else(|| "the tile set has none there".into())
    }

    /// Whether a browser meant this page, and not a name that a foreign site made to point here.
    fn is_for_us(&self, host: Option<&str>) -> bool {
        let Some(host) = host else {
            return true; // no browser leaves it out
        };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        bare.unwrap_or(name).parse::<IpAddr>().is_ok()
            || self
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// `/tiles/ZOOM/X/Y`, in digits only.
fn tile_of(path: &str) -> Option<TileId> {
    let mut numbers = path.strip_prefix("/tiles/")?.split('/').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u32>().ok().filter(|_| digits)
    });
    let (zoom, x, y) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let zoom = u8::try_from(zoom).ok().filter(|zoom| *zoom <= 30)?;
    numbers.next().is_none().then_some(TileId { zoom, x, y })
}

fn media_type(picture: &[u8]) -> &'static str {
    match picture {
        [0xff, 0xd8, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "image/webp",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::path::Path;

    use super::super::history::tests::estimate;
    use super::super::pictures::tests::{found, frame};
    use super::*;
    use crate::config::TilesConfig;
    use crate::event::State;
    use crate::peer::testing;

    const TILE: &[u8] = b"\xff\xd8\xff as it is";

    fn server(tiles: Option<&Path>) -> (PageServer, SocketAddr) {
        let config = PageConfig {
            listen: "127.0.0.1:0".into(),
            hosts: vec!["vehicle.local".into()],
            tiles: tiles.map(|path| TilesConfig {
                path: path.to_owned(),
                sha256: None,
                minisign: None,
            }),
            ..PageConfig::default()
        };
        let server = PageServer::open(&config).unwrap();
        let address = server.server.address();
        (server, address)
    }

    /// A folder with one tile, and what nobody may read beside it.
    fn tile_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "zoom = 18\ntile_px = 256\nmetres_per_pixel = 0.5\ngeoref_sigma_m = 0.1\n\
                        capture_date = \"2025\"\nattribution = \"<b>us</b>\"\nlicence = \"CC0-1.0\"\n";
        std::fs::write(folder.path().join("tiles.toml"), manifest).unwrap();
        std::fs::create_dir_all(folder.path().join("18/3")).unwrap();
        std::fs::write(folder.path().join("18/3/4.jpg"), TILE).unwrap();
        folder
    }

    /// The answer to a request: its head, and what it says.
    fn ask(server: &mut PageServer, address: SocketAddr, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            bytes
        });
        while !reader.is_finished() {
            server.poll().unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let bytes = reader.join().unwrap();
        let end = bytes
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        (head, bytes[end + 4..].to_vec())
    }

    fn get(server: &mut PageServer, address: SocketAddr, path: &str) -> (String, Vec<u8>) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        ask(server, address, &request)
    }

    #[test]
    fn every_route_answers_and_says_what_a_browser_may_do_with_it() {
        let folder = tile_folder();
        let (mut server, address) = server(Some(folder.path()));
        let mut get = |path: &str| get(&mut server, address, path);
        let (head, page) = get("/");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/html; charset=utf-8"));
        assert!(head.contains("Content-Security-Policy: default-src 'none'; script-src 'sha256-"));
        assert!(page.starts_with(b"<!doctype html>") && page.len() < 64 << 10);
        for path in ["/", "/now", "/nothing", "/frame.jpg"] {
            let (head, _) = get(path);
            for field in [
                "no-referrer",
                "nosniff",
                "no-store",
                "same-origin",
                "X-Frame-Options: DENY",
            ] {
                assert!(head.contains(field), "{path}: {field}");
            }
        }
        assert!(
            get("/frame.jpg").0.starts_with("HTTP/1.1 404"),
            "there is none yet"
        );
        let (head, tile) = get("/tiles/18/3/4");
        assert!(head.contains("image/jpeg"));
        assert_eq!(tile, TILE);
        let now: Value = serde_json::from_slice(&get("/now").1).unwrap();
        assert_eq!(now["estimate"], Value::Null);
        assert_eq!(now["tiles"]["attribution"], "<b>us</b>");
        assert!(get("/now?after=x").0.starts_with("HTTP/1.1 400"));
    }

    #[test]
    fn what_came_is_answered() {
        let (mut server, address) = server(None);
        for outbound in [estimate(0.0, State::Ok, 0), frame(64, 32), found()] {
            server.write(&outbound).unwrap();
        }
        let (head, body) = get(&mut server, address, "/now?after=0");
        assert!(head.contains("application/json"));
        let now: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(now["estimate"]["state"], "ok");
        assert_eq!(now["frame"]["source"], "front");
        assert_eq!(now["tiles"], Value::Null);
        assert!(now["tiles_problem"].as_str().unwrap().contains("[tiles]"));
        let (head, jpeg) = get(&mut server, address, "/frame.jpg?1");
        assert!(head.contains("image/jpeg") && jpeg.starts_with(b"\xff\xd8"));
        let (head, png) = get(&mut server, address, "/heatmap.png");
        assert!(head.contains("image/png") && png.starts_with(b"\x89PNG"));
        server.write(&testing::outbound(State::Lost)).unwrap();
        let now: Value = serde_json::from_slice(&get(&mut server, address, "/now").1).unwrap();
        assert!(now["estimate"].get("latitude_deg").is_none());
    }

    #[test]
    fn it_is_read_only_and_no_way_into_the_disk() {
        let folder = tile_folder();
        let (mut server, address) = server(Some(folder.path()));
        for method in [
            "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
        ] {
            let request = format!("{method} / HTTP/1.1\r\nHost: {address}\r\n\r\n");
            let (head, _) = ask(&mut server, address, &request);
            assert!(
                head.starts_with("HTTP/1.1 405") && head.contains("Allow: GET, HEAD"),
                "{method}"
            );
        }
        for path in [
            "/tiles/18/../tiles.toml",
            "/tiles/18/3/..%2f..%2ftiles.toml",
            "/tiles/18/3/4.jpg",
            "/tiles/18/3/4/",
            "/tiles/18/3/+4",
            "/tiles/18/-3/4",
            "/tiles/18/3/99999999999",
            "/tiles/17/3/4",
            "/tiles/300/3/4",
            "/tiles/18/400000/4",
            "/tiles//3/4",
            "/../etc/passwd",
            "//etc/passwd",
            "/page.js",
            "http://elsewhere/",
        ] {
            let (head, body) = get(&mut server, address, path);
            assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
            assert!(body.len() < 100, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn only_three_numbers_are_a_tile(path in "(/tiles/)?[0-9/.%+a-f ]{0,12}") {
            if let Some(TileId { zoom, x, y }) = tile_of(&path) {
                let parts: Vec<u32> = path[7..].split('/').map(|part| part.parse().unwrap()).collect();
                proptest::prop_assert_eq!(parts, vec![u32::from(zoom), x, y]);
                proptest::prop_assert!(!path.contains(['.', '+', '%']));
            }
        }
    }

    #[test]
    fn a_name_that_a_foreign_site_points_here_is_refused() {
        let (mut server, address) = server(None);
        let port = address.port();
        let mut status = |host: &str| {
            let request = format!("GET /now HTTP/1.1\r\nHost: {host}\r\n\r\n");
            ask(&mut server, address, &request).0[9..12].to_owned()
        };
        for good in [
            "127.0.0.1",
            "localhost",
            "LOCALHOST:8470",
            "[::1]:8470",
            "192.168.1.20:80",
            "vehicle.local",
        ] {
            assert_eq!(status(good), "200", "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "vehicle.local.evil.example:1",
            "x",
            "",
            ":80",
        ] {
            assert_eq!(status(bad), "403", "{bad}");
        }
        assert_eq!(status(&format!("localhost:{port}")), "200");
    }

    #[test]
    fn slow_and_many_viewers_keep_nobody_out_and_hold_nothing_up() {
        let (mut server, address) = server(None);
        server.write(&frame(900, 900)).unwrap();
        let viewers: Vec<_> = (0..100)
            .map(|at| {
                let mut stream = TcpStream::connect(address).unwrap();
                // Half of them ask and never read, the others never finish to ask.
                let request = ["GET / HTTP/1.1\r\n\r\n", "GET / HT"][at % 2];
                stream.write_all(request.as_bytes()).unwrap();
                stream
            })
            .collect();
        let start = Instant::now();
        for step in 0..2000 {
            server
                .write(&estimate(f64::from(step), State::Ok, 0))
                .unwrap();
        }
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert!(
            get(&mut server, address, "/now")
                .0
                .starts_with("HTTP/1.1 200")
        );
        assert!(server.clients().unwrap().connected <= PageConfig::default().max_clients);
        drop(viewers);
    }
}
