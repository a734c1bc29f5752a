//! One transactional producer, from the moment that it has shut out all before it to the first thing that it can't tell.
//!
//! First it puts a mark into each partition, and takes it back: no reader of what is committed sees it. But now it is known how
//! far each partition goes at least, whatever a broker says that stood still for a while and still believes that it leads.
//!
//! It lives on a thread of its own. A batch is a transaction: the thread hands all records to librdkafka, waits until
//! each is answered, and commits only if all are stored. While the commit wasn't asked for, an acknowledged abort makes
//! sure that nothing is there. Once it was, anything but its success leaves doubt, and this producer is done with: the next
//! one fences it.

use crate::aside::{Waiting, let_go};
use crate::client::{Acknowledged, Context, broken_settings, code, one_line, refused, words};
use crate::record::Record;
use custody_sinks::item::Item;
use custody_sinks::sink::{Answer, Trouble};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The longest record that librdkafka takes, in bytes: an event has at most 65,535, and its headers a little more.
const RECORD_BYTES_MAX: usize = 1_000_000;
/// Records of one partition are sent together up to so many bytes, before they are packed: less than brokers take, packed, where nobody has
/// said otherwise (1,048,588). And where it isn't known what the topic takes.
const SET_BYTES: usize = 1_000_000;
const SET_BYTES_UNKNOWN: usize = 512 << 10;
/// What librdkafka holds at once, in records and KiB of values. The rest of a batch waits until some are answered.
const QUEUE_RECORDS: usize = 10_000;
const QUEUE_KIB: usize = 16 << 10;
/// After how many records that were handed over answers are heard: what was answered frees its memory for those to come.
const HEAR_EVERY: usize = 20;
/// How often is looked for what has happened, where nothing has. Not by way of the crate's own wait: that goes on until its end whatever
/// comes, and what is left of it below a millisecond it spends asking again and again, which is a third of a short one.
const LOOK: Duration = Duration::from_millis(1);
/// How much longer than the brokers may take is waited for librdkafka to say that they did.
const GRACE: Duration = Duration::from_secs(5);
/// How long a step may block before is looked whether anybody still waits.
const STEP: Duration = Duration::from_millis(500);
/// How long taking back may block before is heard what that has done.
const TURN: Duration = Duration::from_millis(50);
/// How long brokers that don't let us in may take to think better of it: one of several may be wrong.
const DOUBT: Duration = Duration::from_secs(2);
/// How long a producer that is done with may take to take back what it has begun, so that readers needn't wait for the
/// brokers to do so.
const FAREWELL: Duration = Duration::from_secs(2);

/// The key of a mark.
const MARK: &str = "custody-mark";

/// What a session is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What all clients have in common.
    pub client: ClientConfig,
    /// The log's origin.
    pub origin: String,
    /// Where to.
    pub topic: String,
    /// The topic's partitions.
    pub partitions: Vec<i32>,
    /// Hears what is acknowledged.
    pub acknowledged: Arc<Acknowledged>,
    /// By what the brokers know it.
    pub transactional_id: String,
    /// How records are packed.
    pub compression: &'static str,
    /// How long brokers may take for one thing.
    pub timeout: Duration,
    /// The longest packed set of records that the topic takes, in bytes, where that is known.
    pub set_bytes_max: Option<usize>,
}

/// A producer that runs. It ends when this is dropped.
pub struct Session {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    items: Vec<Item>,
    answer: oneshot::Sender<Done>,
}

/// What came of a batch.
pub struct Done {
    /// The answers, or why there are none.
    pub result: Result<Vec<Answer>, Trouble>,
    /// Whether the session goes on.
    pub lives: bool,
}

impl Session {
    /// Makes one, and returns once whoever had its transactional id is shut out: nothing of what they sent appears from
    /// then on, and nothing of it is undecided. Blocks.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn begin(plan: Plan, waiting: &Waiting) -> Result<Self, Trouble> {
        let producer = produce(&plan)?;
        let waits = || waiting.is_waited_for();
        let begun = fence(&producer, &plan, waiting)
            .and_then(|()| Transaction { producer: &producer, plan: &plan, proven: false, waits }.mark());
        if let Err(trouble) = begun {
            let_go(producer);
            return Err(trouble);
        }
        let (jobs, inbox) = mpsc::channel(1);
        let thread = std::thread::Builder::new().name("kafka-producer".to_owned());
        let serving = thread.spawn(move || serve(producer, &plan, inbox));
        serving.map_err(|error| Trouble::Refused {
            reason: format!("no thread could be started: {error}"),
            retry_after: None,
        })?;
        Ok(Self { jobs })
    }

    /// Sends a batch as one transaction.
    pub async fn send(&self, items: Vec<Item>) -> Done {
        let (answer, answered) = oneshot::channel();
        let gone = |reason: &str| Done { result: Err(Trouble::unclear(reason)), lives: false };
        if self.jobs.send(Job { items, answer }).await.is_err() {
            return gone("the producer has ended");
        }
        answered.await.unwrap_or_else(|_| gone("the producer ended before it answered"))
    }
}

fn produce(plan: &Plan) -> Result<BaseProducer<Context>, Trouble> {
    let timeout = plan.timeout.as_millis().to_string();
    // Longer than everything that one transaction may take here, or the brokers would end it under our hands.
    let whole = (plan.timeout * 2 + Duration::from_secs(10)).as_millis().to_string();
    // Then what is refused as too long is one record alone, and no neighbour of it.
    let set_bytes =
        plan.set_bytes_max.map_or(SET_BYTES_UNKNOWN, |most| most.saturating_sub(1_024).clamp(1, SET_BYTES));
    let mut config = plan.client.clone();
    config
        .set("transactional.id", plan.transactional_id.as_str())
        .set("transaction.timeout.ms", whole)
        .set("enable.idempotence", "true")
        // One that is deleted is made anew as documented, and not by the brokers, with whatever their defaults are.
        .set("allow.auto.create.topics", "false")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        .set("request.timeout.ms", timeout.as_str())
        .set("message.timeout.ms", timeout)
        .set("compression.type", plan.compression)
        .set("linger.ms", "5")
        .set("batch.size", set_bytes.to_string())
        .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
        .set("queue.buffering.max.messages", QUEUE_RECORDS.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIB.to_string())
        // As Java's clients do it, so that theirs and ours of one key meet.
        .set("partitioner", "murmur2_random");
    config
        .create_with_context(Context::telling(Arc::clone(&plan.acknowledged)))
        .map_err(|error| broken_settings(&error))
}

/// Waits until those before us are shut out and what they left is decided.
fn fence(producer: &BaseProducer<Context>, plan: &Plan, waiting: &Waiting) -> Result<(), Trouble> {
    let begun = Instant::now();
    loop {
        let error = match producer.init_transactions(STEP) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Errors of connections are heard only so.
        producer.poll(LOOK);
        let context = producer.context();
        if let Some(denied) = context.denied().filter(|_| begun.elapsed() > DOUBT) {
            return Err(denied);
        }
        // It goes on in the background, and the next call resumes it.
        let goes_on = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
        if !goes_on {
            return Err(refused(code(&error)));
        }
        if begun.elapsed() > plan.timeout || !waiting.is_waited_for() {
            let reason = context.reason("the brokers don't begin a transaction");
            return Err(Trouble::Refused { reason, retry_after: None });
        }
    }
}

/// The thread: one batch after the other, until nobody sends one or one can't be told.
fn serve(producer: BaseProducer<Context>, plan: &Plan, mut inbox: mpsc::Receiver<Job>) {
    let mut proven = false;
    while let Some(Job { items, answer }) = inbox.blocking_recv() {
        let done =
            Transaction { producer: &producer, plan, proven, waits: || !answer.is_closed() }.run(&items);
        proven |= done.result.is_ok();
        let lives = done.lives;
        let heard = answer.send(done).is_ok();
        if !lives || !heard {
            break;
        }
    }
    // Nobody is answered any more while this takes its time.
    drop(inbox);
    // Dropping it purges what it still holds.
    drop(producer);
}

/// One batch on its way.
struct Transaction<'a, W> {
    producer: &'a BaseProducer<Context>,
    plan: &'a Plan,
    /// Whether this producer has stored something already.
    proven: bool,
    /// Whether anybody waits for the answer.
    waits: W,
}

/// What came of some records.
enum Outcome {
    /// All of them are there.
    Stored,
    /// None of them is: some are too long by themselves.
    TooLong(String),
    /// None of them is, and librdkafka gives no reason of any of them.
    Unexplained,
    /// Why they aren't, or why nobody knows; and whether the session goes on.
    Not(Trouble, bool),
}

impl<W: Fn() -> bool> Transaction<'_, W> {
    fn run(&self, items: &[Item]) -> Done {
        match self.attempt(items) {
            Outcome::Stored => Done { result: Ok(vec![Answer::Stored; items.len()]), lives: true },
            Outcome::Unexplained => Done { result: Err(self.unexplained()), lives: false },
            Outcome::Not(trouble, lives) => Done { result: Err(trouble), lives },
            Outcome::TooLong(reason) => match items {
                [_] => Done { result: Ok(vec![Answer::Rejected(reason)]), lives: true },
                items => self.in_pieces(items),
            },
        }
    }

    /// In the same order, but each that may be too long has a transaction of its own.
    fn in_pieces(&self, items: &[Item]) -> Done {
        let begun = Instant::now();
        let mut answers = Vec::with_capacity(items.len());
        let mut reason = "events of its batch are refused one by one, which takes long".to_owned();
        let mut lives = true;
        for piece in items.chunk_by(|one, other| !self.is_long(one) && !self.is_long(other)) {
            if begun.elapsed() > self.plan.timeout {
                break;
            }
            let (trouble, goes_on) = match (self.attempt(piece), piece) {
                (Outcome::Stored, _) => {
                    answers.extend(piece.iter().map(|_| Answer::Stored));
                    continue;
                }
                (Outcome::TooLong(reason), [_]) => {
                    answers.push(Answer::Rejected(reason));
                    continue;
                }
                (Outcome::TooLong(why), _) => {
                    reason = why;
                    break;
                }
                (Outcome::Not(trouble, goes_on), _) => (trouble, goes_on),
                (Outcome::Unexplained, _) => (self.unexplained(), false),
            };
            if answers.is_empty() || trouble.leaves_doubt() {
                return Done { result: Err(trouble), lives: goes_on };
            }
            (reason, lives) = (trouble.to_string(), goes_on);
            break;
        }
        answers.resize(items.len(), Answer::Later(reason));
        Done { result: Ok(answers), lives }
    }

    /// Whether a record may be too long for the topic: packed, it may be not.
    fn is_long(&self, item: &Item) -> bool {
        self.plan.set_bytes_max.is_some_and(|most| Record::new(item, &self.plan.origin).bytes() > most)
    }

    /// One transaction. What was refused before leaves a gap in the numbers of its partition, which the broker finds in the next one. When
    /// that is taken back, librdkafka begins the numbers anew: another one goes through.
    fn attempt(&self, items: &[Item]) -> Outcome {
        match self.once(items) {
            Outcome::Unexplained => self.once(items),
            outcome => outcome,
        }
    }

    fn once(&self, items: &[Item]) -> Outcome {
        if let Err(code) = self.begin() {
            return Outcome::Not(refused(code), false);
        }
        if self.hand_over(items) {
            return self.commit();
        }
        match self.abort() {
            Ok(failed) => self.told(items, &failed),
            Err(reason) => Outcome::Not(self.not_taken_back(reason), false),
        }
    }

    /// What can't be taken back may be there.
    fn not_taken_back(&self, reason: String) -> Trouble {
        let was_late = |(_, code): &(usize, Code)| *code == Code::MessageTimedOut;
        if self.producer.context().take_failed().iter().any(was_late) {
            return Trouble::Late { reason, in_doubt: true };
        }
        Trouble::unclear(reason)
    }

    /// Why the transaction came to nothing, where no record says it.
    fn unexplained(&self) -> Trouble {
        let context = self.producer.context();
        let what =
            if (self.waits)() { "the brokers end the transaction" } else { "nobody waited for the answer" };
        let refused = || Trouble::Refused { reason: context.reason(what), retry_after: None };
        context.denied().unwrap_or_else(refused)
    }

    fn begin(&self) -> Result<(), Code> {
        self.producer.context().begins();
        self.producer.begin_transaction().map_err(|error| code(&error))
    }

    /// Puts a mark into each partition, and takes all of them back.
    fn mark(&self) -> Result<(), Trouble> {
        let (producer, context) = (self.producer, self.producer.context());
        self.begin().map_err(refused)?;
        for (place, partition) in self.plan.partitions.iter().enumerate() {
            let mark = BaseRecord::<str, str, usize>::with_opaque_to(&self.plan.topic, place);
            match producer.send(mark.partition(*partition).key(MARK).payload("")) {
                Ok(()) => context.was_sent(),
                Err((error, _)) => context.was_refused(place, code(&error)),
            }
        }
        let all_stored = self.are_stored(self.plan.partitions.len(), self.deadline());
        let failed = self
            .abort()
            .map_err(|reason| context.denied().unwrap_or(Trouble::Refused { reason, retry_after: None }))?;
        match failed.iter().find(|(_, code)| !follows(*code)) {
            Some((_, code)) => Err(refused(*code)),
            None if all_stored => Ok(()),
            None => Err(self.unexplained()),
        }
    }

    /// Gives all of them to librdkafka and waits for the answers. Whether all are stored.
    fn hand_over(&self, items: &[Item]) -> bool {
        let (producer, context) = (self.producer, self.producer.context());
        let deadline = self.deadline();
        let mut record = Record::default();
        for (place, item) in items.iter().enumerate() {
            record.become_of(item, &self.plan.origin);
            while let Err(code) = self.put(place, &record) {
                if code != Code::QueueFull {
                    context.was_refused(place, code);
                } else if Instant::now() > deadline {
                    context.was_refused(place, Code::MessageTimedOut);
                }
                // What fails meanwhile keeps the others in the queue.
                if !self.goes_on() {
                    return false;
                }
                self.listen();
            }
            if place % HEAR_EVERY == 0 {
                producer.poll(Duration::ZERO);
            }
            if context.has_failed() {
                return false;
            }
        }
        self.are_stored(items.len(), deadline)
    }

    /// Gives one to librdkafka.
    fn put(&self, place: usize, record: &Record) -> Result<(), Code> {
        let message = BaseRecord::with_opaque_to(&self.plan.topic, place)
            .key(record.key())
            .payload(&*record.value)
            .headers(record.native_headers())
            .timestamp(record.timestamp);
        self.producer.send(message).map_err(|(error, _)| code(&error))?;
        // Its answer is heard by this thread, and only when it asks.
        self.producer.context().was_sent();
        Ok(())
    }

    /// Until when the answers for what is begun now are waited for.
    fn deadline(&self) -> Instant {
        Instant::now() + self.plan.timeout + GRACE
    }

    /// Whether nothing has failed and somebody waits.
    fn goes_on(&self) -> bool {
        !self.producer.context().has_failed() && (self.waits)()
    }

    /// Waits until so many are stored, or one isn't: then the others needn't be waited for, and some of them can't be, since
    /// librdkafka holds them back until all is taken back.
    fn are_stored(&self, records: usize, deadline: Instant) -> bool {
        let context = self.producer.context();
        while context.stored() < records && self.goes_on() {
            if Instant::now() > deadline {
                context.was_refused(0, Code::MessageTimedOut);
            }
            self.listen();
        }
        context.stored() == records && self.goes_on()
    }

    /// Hears what has come, or waits a moment.
    fn listen(&self) {
        let context = self.producer.context();
        let before = context.open();
        self.producer.poll(Duration::ZERO);
        if context.open() == before && !context.has_failed() {
            std::thread::sleep(LOOK);
        }
    }

    fn commit(&self) -> Outcome {
        match self.producer.commit_transaction(self.plan.timeout) {
            Ok(()) => Outcome::Stored,
            Err(error) => {
                let reason = format!("it isn't known whether the brokers committed: {}", said(&error));
                Outcome::Not(Trouble::unclear(reason), false)
            }
        }
    }

    /// Takes everything back. When this succeeds, the brokers have acknowledged that: nothing of it will ever be seen. Gives
    /// what wasn't stored before, in the order in which that was heard.
    fn abort(&self) -> Result<Vec<(usize, Code)>, String> {
        let (producer, context) = (self.producer, self.producer.context());
        let patience = if (self.waits)() { self.plan.timeout } else { FAREWELL };
        let begun = Instant::now();
        loop {
            // What it purges is told only so, and it waits until that was heard.
            producer.poll(LOOK);
            let Err(error) = producer.abort_transaction(TURN) else { break };
            let goes_on = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
            if !goes_on || begun.elapsed() > patience {
                return Err(format!("it couldn't be taken back: {}", said(&error)));
            }
        }
        let failed = context.take_failed();
        match context.open() {
            0 => Ok(failed),
            open => Err(format!("librdkafka doesn't answer for {open} records")),
        }
    }

    /// Why this producer is done with.
    fn fatal(&self) -> Option<Trouble> {
        let (_, reason) = self.producer.client().fatal_error()?;
        Some(Trouble::Refused { reason: one_line(&reason), retry_after: None })
    }

    /// What to say of records none of which is stored.
    fn told(&self, items: &[Item], failed: &[(usize, Code)]) -> Outcome {
        let causes = || failed.iter().copied().filter(|(_, code)| !follows(*code));
        let Some((_, cause)) = causes().next() else {
            return match self.fatal() {
                Some(trouble) => Outcome::Not(trouble, false),
                None if self.producer.context().denied().is_none() && (self.waits)() => Outcome::Unexplained,
                None => Outcome::Not(self.unexplained(), false),
            };
        };
        if !is_its_own_fault(cause) {
            return Outcome::Not(self.fatal().unwrap_or_else(|| refused(cause)), false);
        }
        let reason = words(cause);
        // One that is too long by itself is known; what failed beside one in its set is not at fault.
        let is_long = |place: usize| items.get(place).is_some_and(|item| self.is_long(item));
        if items.len() == 1 || causes().any(|(place, _)| is_long(place)) {
            return Outcome::TooLong(reason);
        }
        // What the topic takes may have been changed since this began: it is asked again. If that was it, they all go.
        if self.proven {
            Outcome::Not(Trouble::Refused { reason, retry_after: None }, false)
        } else {
            Outcome::Not(Trouble::Poisoned { reason }, true)
        }
    }
}

/// Whether a record failed only because something else did.
fn follows(code: Code) -> bool {
    matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::InvalidDifferentRecord | Code::State)
}

/// Whether a record was refused for what it is.
fn is_its_own_fault(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
    )
}

/// What an error says, in one line.
fn said(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => one_line(&error.string()),
        error => words(code(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_are_not_there_have_taken_nothing() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", format!("127.0.0.1:{port}"));
        let plan = Plan {
            client,
            origin: "custody.test/log".to_owned(),
            topic: "t".to_owned(),
            partitions: vec![0],
            acknowledged: Arc::default(),
            transactional_id: "t".to_owned(),
            compression: "lz4",
            timeout: Duration::from_secs(1),
            set_bytes_max: None,
        };
        let (waiting, _waits) = Waiting::forever();
        let trouble = Session::begin(plan, &waiting).err().unwrap();
        assert!(matches!(&trouble, Trouble::Refused { .. }), "{trouble}");
    }

    #[test]
    fn a_refusal_for_size_is_the_events_and_no_other() {
        assert!(is_its_own_fault(Code::MessageSizeTooLarge) && is_its_own_fault(Code::InvalidRecord));
        for code in
            [Code::MessageTimedOut, Code::NotEnoughReplicas, Code::InvalidTimestamp, Code::ProducerFenced]
        {
            assert!(!is_its_own_fault(code), "{code}");
        }
    }
}
