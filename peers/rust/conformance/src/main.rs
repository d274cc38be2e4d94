//! `conformance vectors DIR` and `conformance peer …`: the same command line in all languages.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::Duration;

use conformance::peer::{self, Options, Place};
use conformance::vectors;
use lahja_capn::{Limits, UNLIMITED};

const USAGE: &str = "usage: conformance vectors DIR
       conformance peer --name NAME (--serve PATH | --connect PATH --expect NAME)
                        [--event-credit BYTES] [--request-credit BYTES] [--frame-limit BYTES] [--keepalive-ms MS]
                        [--handshake-ms MS]";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["vectors", folder] => vectors::run_all(Path::new(folder)).map_err(Into::into),
        ["peer", options @ ..] => match parse(options) {
            Ok(options) => play(options),
            Err(text) => misused(&text),
        },
        _ => misused("neither vectors nor peer"),
    };
    // Not a return from main: standard input may be read by a thread that cannot be ended.
    exit(match result {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    })
}

fn misused(text: &str) -> ! {
    eprintln!("{text}\n{USAGE}");
    exit(2)
}

fn play(options: Options) -> Result<bool, Box<dyn std::error::Error>> {
    // One thread: the programs of a test share few processors, and this one mostly waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(peer::run(options)).map(|()| true);
    runtime.shutdown_background();
    result
}

fn parse(arguments: &[&str]) -> Result<Options, String> {
    let (mut name, mut serve, mut connect, mut expect) = (None, None, None, None);
    let mut limits = Limits::default();
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let value = *rest.next().ok_or_else(|| format!("{option} wants a value"))?;
        let number = || match value {
            "unlimited" => Ok(UNLIMITED),
            other => other.parse::<u64>().map_err(|_| format!("{option} is {value:?}; wanted a number")),
        };
        match *option {
            "--name" => name = Some(value.to_owned()),
            "--serve" => serve = Some(PathBuf::from(value)),
            "--connect" => connect = Some(PathBuf::from(value)),
            "--expect" => expect = Some(value.to_owned()),
            "--event-credit" => limits.event_credit_bytes = number()?,
            "--request-credit" => limits.request_credit_bytes = number()?,
            "--frame-limit" => limits.frame_bytes = u32::try_from(number()?).map_err(|error| error.to_string())?,
            "--keepalive-ms" => limits.keepalive = Duration::from_millis(number()?),
            "--handshake-ms" => limits.handshake_timeout = Duration::from_millis(number()?),
            other => return Err(format!("{other} is not known")),
        }
    }
    let place = match (serve, connect, expect) {
        (Some(path), None, None) => Place::Serve(path),
        (None, Some(path), Some(expect)) => Place::Connect { path, expect },
        _ => return Err("wanted --serve PATH, or --connect PATH with --expect NAME".to_owned()),
    };
    Ok(Options { name: name.ok_or("wanted --name NAME")?, place, limits })
}
