//! A guest of another endpoint: prints each `Count`, says so in an `Evolving` of its own, asks one question, and answers
//! what it is asked. Ends when the other side says goodbye.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use conformance::conformance_capnp::{answer, ask, count, evolving};
use lahja_capn::{rows, type_id, Content, Endpoint, Event, GoodbyeCode, Notice, Request};

/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |option: &str| arguments.chunks(2).find(|pair| pair[0] == option).and_then(|pair| pair.get(1));
    let (Some(path), Some(expect), Some(name)) = (value("--connect"), value("--expect"), value("--name")) else {
        eprintln!("usage: example --connect PATH --expect NAME --name NAME");
        return ExitCode::from(2);
    };
    match run(path, expect, name).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(path: &str, expect: &str, name: &str) -> Result<(), Box<dyn Error>> {
    // The rows of the event types, as `lahja-capn table` printed them.
    let endpoint = Endpoint::builder(name).types(rows!(conformance::table)).build()?;
    let mut notices = endpoint.notices();
    let counts = endpoint.subscribe(&[type_id::<count::Owned>()])?;
    let questions = endpoint.requests(&[type_id::<ask::Owned>()])?;
    endpoint.connect(path, expect).await?;

    tokio::spawn(ask_for_21(endpoint.clone(), expect.to_owned()));
    loop {
        tokio::select! {
            Some(event) = counts.recv() => report(&endpoint, &event).await?,
            Some(request) = questions.recv() => twice(request)?,
            Some(notice) = notices.recv() => if let Notice::Down { peer, ending } = notice {
                println!("{peer} is gone: {ending}");
                return match ending.code {
                    Some(GoodbyeCode::Shutdown) => Ok(()),
                    _ => Err(ending.to_string().into()),
                };
            },
        }
    }
}

async fn report(endpoint: &Endpoint, event: &Event) -> Result<(), Box<dyn Error>> {
    // Fields are read in place, out of the received bytes.
    let reader = event.read::<count::Owned>()?;
    let number = reader.get()?.get_number();
    println!("has seen Count {number} of {}", event.origin());
    let text = format!("{} has seen {number}", endpoint.name());
    let seen = Content::build::<evolving::Owned>(|mut seen| {
        seen.set_number(number as u32);
        seen.set_text(text);
    });
    endpoint.broadcast(&seen).await?;
    Ok(())
}

async fn ask_for_21(endpoint: Endpoint, expect: String) {
    let question = Content::build::<ask::Owned>(|mut ask| ask.set_number(21));
    endpoint.wait_for_subscriber(question.type_id()).await;
    let asked = endpoint.request::<answer::Owned>(&question, PATIENCE).await;
    let told = asked.map_err(Box::<dyn Error>::from).and_then(|reply| {
        let reader = reply.read();
        let answer = reader.get()?;
        Ok(format!("{}, {:?}", answer.get_number(), answer.get_text()?.to_str()?))
    });
    match told {
        Ok(told) => println!("asked {expect} for twice 21: {told}"),
        Err(error) => println!("asked {expect} for twice 21: {error}"),
    }
}

fn twice(request: Request) -> Result<(), Box<dyn Error>> {
    let number = request.read::<ask::Owned>()?.get()?.get_number();
    println!("is asked by {} for twice {number}", request.origin());
    let answer = Content::build::<answer::Owned>(|mut answer| {
        answer.set_number(number.wrapping_mul(2));
        answer.set_text(format!("twice {number}"));
    });
    request.respond(&answer)?;
    Ok(())
}
