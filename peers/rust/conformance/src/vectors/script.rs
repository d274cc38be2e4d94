//! Runs the script of a conversation or a refusal.

use serde_json::Value;

use super::compare::{compare, matches, short};
use super::consumer::Consumer;
use super::{Failed, Vector};

pub fn run(vector: &Vector, piece: usize) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(play(vector, piece))
}

async fn play(vector: &Vector, piece: usize) -> Result<(), Failed> {
    let mut consumer = Consumer::new(vector.text("role"), &vector.facts["setup"])?;
    consumer.settle().await?;
    let mut at = 0;
    let mut found = 0;
    for (number, step) in vector.facts["script"].as_array().into_iter().flatten().enumerate() {
        let failed = |text: Failed| format!("step {number} {}: {text}", short(step));
        if let Some(count) = step.get("send").and_then(Value::as_u64) {
            let end = at + count as usize;
            let part = vector.data.get(at..end).ok_or("the vector has fewer bytes than its script sends")?;
            let part = patched(part.to_vec(), step, &consumer).map_err(failed)?;
            at = end;
            consumer.receive(&part, piece).await.map_err(failed)?;
        } else if let Some(wanted) = step.get("await") {
            let position = (found..consumer.frames.len()).find(|&k| matches(&consumer.frames[..=k], wanted));
            found = 1 + position.ok_or_else(|| {
                let sent: Vec<&Value> = consumer.frames[found..].iter().map(|frame| &frame["sent"]).collect();
                failed(format!("not sent; sent {sent:?}, shown {:?}", consumer.facts.last()))
            })?;
        } else if let Some(kind) = step.get("count") {
            let count = consumer.frames.iter().filter(|frame| &frame["sent"] == kind).count();
            if Some(count as u64) != step["is"].as_u64() {
                return Err(failed(format!("it is {count}")));
            }
        } else if let Some(action) = step.get("do").and_then(Value::as_str) {
            consumer.act(action, step).await.map_err(failed)?;
        } else if step.get("eof").is_some() {
            consumer.eof().await.map_err(failed)?;
        } else {
            return Err(failed("the step is not known".to_owned()));
        }
    }
    if at != vector.data.len() {
        return Err(format!("{} bytes are in no step", vector.data.len() - at));
    }
    compare(vector, &consumer)
}

fn patched(mut bytes: Vec<u8>, step: &Value, consumer: &Consumer) -> Result<Vec<u8>, Failed> {
    for patch in step.get("patch").and_then(Value::as_array).into_iter().flatten() {
        let number = match patch.get("request").and_then(Value::as_u64) {
            Some(index) => {
                let position = (index as usize).wrapping_sub(1);
                *consumer.request_numbers.get(position).ok_or_else(|| format!("request {index} was not sent"))?
            }
            None => consumer.last_sequence,
        };
        let number = number.wrapping_add_signed(patch.get("plus").and_then(Value::as_i64).unwrap_or(0));
        let at = patch["at"].as_u64().ok_or("a patch without a place")? as usize;
        bytes.get_mut(at..at + 8).ok_or("a patch outside")?.copy_from_slice(&number.to_le_bytes());
    }
    Ok(bytes)
}
