//! What librdkafka can and its safe wrapper cannot: fetching messages by the batch, with the offset at which a partition
//! ended, and asking for a topic's id. All of this crate's unsafe code is here.
//!
//! Every pointer belongs to a value of this module, which destroys it, and lives no longer than the client it came from.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

/// What librdkafka says went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
}

impl Refusal {
    fn of(code: RDKafkaRespErr) -> Self {
        // SAFETY: the answer is a static string for every code.
        let text = unsafe { text_of(sys::rd_kafka_err2str(code)) };
        Self { code: code.into(), text }
    }
}

/// # Safety
/// `text` is null or a string that ends in NUL.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
}

/// A topic's handle.
struct Topic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_topic_new, and destroyed once.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// A partition that is being fetched from an offset on. Only one of a client may fetch it.
pub(super) struct Fetch<'c, C: ConsumerContext> {
    topic: Topic,
    partition: i32,
    client: PhantomData<&'c BaseConsumer<C>>,
}

/// One thing that a fetch brought.
pub(super) enum Fetched<'a> {
    /// A record.
    Record(Record<'a>),
    /// The log, or what is committed of it, ended at this offset.
    End(i64),
    /// The partition cannot be fetched.
    Failed(Refusal),
}

/// A record in the client's memory.
pub(super) struct Record<'a> {
    pub(super) offset: i64,
    /// Milliseconds since 1970, and whether the broker set it; none where it has none.
    pub(super) timestamp: Option<(i64, bool)>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    message: NonNull<sys::rd_kafka_message_t>,
}

impl<'c, C: ConsumerContext> Fetch<'c, C> {
    /// Starts fetching.
    pub(super) fn start(
        client: &'c BaseConsumer<C>,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Self, Refusal> {
        let name = CString::new(topic).map_err(|_| Refusal::of(RDKafkaRespErr::RD_KAFKA_RESP_ERR__INVALID_ARG))?;
        // SAFETY: the client is alive, the name ends in NUL, and a null configuration means the default one.
        let handle =
            unsafe { sys::rd_kafka_topic_new(client.client().native_ptr(), name.as_ptr(), std::ptr::null_mut()) };
        // SAFETY: reads the thread's last error.
        let last = || Refusal::of(unsafe { sys::rd_kafka_last_error() });
        let topic = Topic(NonNull::new(handle).ok_or_else(last)?);
        // SAFETY: the handle is alive; what fails has started nothing.
        if unsafe { sys::rd_kafka_consume_start(topic.0.as_ptr(), partition, offset) } != 0 {
            return Err(last());
        }
        Ok(Self { topic, partition, client: PhantomData })
    }

    /// What has come: so much as soon as it is there, less after `wait`, and nothing where nothing has.
    pub(super) fn next(&mut self, wait: Duration, most: usize) -> Result<Messages, Refusal> {
        let mut messages = vec![std::ptr::null_mut(); most];
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the handle is alive, its partition was started, and there is room for as many as are asked for.
        let count = unsafe {
            sys::rd_kafka_consume_batch(
                self.topic.0.as_ptr(),
                self.partition,
                wait,
                messages.as_mut_ptr(),
                messages.len(),
            )
        };
        // SAFETY: reads the thread's last error.
        let count = usize::try_from(count).map_err(|_| Refusal::of(unsafe { sys::rd_kafka_last_error() }))?;
        messages.truncate(count);
        Ok(Messages(messages.into_iter().filter_map(NonNull::new).collect()))
    }
}

impl<C: ConsumerContext> Drop for Fetch<'_, C> {
    fn drop(&mut self) {
        // SAFETY: started by `start`, and stopped once; drops what was fetched and not taken.
        unsafe { sys::rd_kafka_consume_stop(self.topic.0.as_ptr(), self.partition) };
    }
}

/// What one call brought.
pub(super) struct Messages(Vec<NonNull<sys::rd_kafka_message_t>>);

// SAFETY: nobody else knows of these messages.
unsafe impl Send for Messages {}

impl Messages {
    /// None.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one at `at`.
    pub(super) fn get(&self, at: usize) -> Option<Fetched<'_>> {
        let message = *self.0.get(at)?;
        // SAFETY: alive until this value is dropped, which the answer borrows.
        let raw = unsafe { message.as_ref() };
        Some(match raw.err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Fetched::Record(unsafe { Record::of(message, raw) }),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => Fetched::End(raw.offset),
            code => {
                // SAFETY: the text belongs to the message, which is alive.
                let text = unsafe { text_of(sys::rd_kafka_message_errstr(message.as_ptr())) };
                let refusal = Refusal::of(code);
                Fetched::Failed(if text.is_empty() { refusal } else { Refusal { text, ..refusal } })
            }
        })
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        for message in &self.0 {
            // SAFETY: each came from one call, and is destroyed once.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) }
        }
    }
}

impl<'a> Record<'a> {
    /// # Safety
    /// `raw` is what `message` points to, has no error, and lives as long as `'a`.
    unsafe fn of(message: NonNull<sys::rd_kafka_message_t>, raw: &'a sys::rd_kafka_message_t) -> Self {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; the kind is written where it is asked to be.
        let millis = unsafe { sys::rd_kafka_message_timestamp(message.as_ptr(), &mut kind) };
        let by_broker = kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
        let is_there = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis >= 0;
        // SAFETY: pointer and length are of one buffer of the message; a null pointer is no value.
        let bytes = |at: *mut std::ffi::c_void, length: usize| {
            NonNull::new(at.cast::<u8>()).map(|at| unsafe { slice::from_raw_parts(at.as_ptr(), length) })
        };
        Self {
            offset: raw.offset,
            timestamp: is_there.then_some((millis, by_broker)),
            key: bytes(raw.key, raw.key_len),
            value: bytes(raw.payload, raw.len),
            message,
        }
    }

    /// Calls `see` with every header, in order.
    pub(super) fn headers(&self, mut see: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive, and so are its headers as long as it is.
        let code = unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &mut headers) };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return;
        }
        for at in 0.. {
            let (mut name, mut value, mut length) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the headers are alive; what is written are pointers into them.
            let code = unsafe { sys::rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut length) };
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return;
            }
            // SAFETY: the name ends in NUL; pointer and length are of one buffer.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes();
            let value = (!value.is_null()).then(|| unsafe { slice::from_raw_parts(value.cast::<u8>(), length) });
            see(name, value);
        }
    }
}

/// A topic as the brokers describe it.
pub(super) struct Description {
    /// Its id, in Base64; empty where the brokers have none.
    pub(super) id: String,
    /// How many partitions it has.
    pub(super) partitions: usize,
}

/// How long an answer is waited for at a time, in milliseconds.
const GLANCE: i32 = 100;

/// Asks for a topic; waits until there is an answer, or `in_vain` says that none is to be expected.
pub(super) fn describe<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    wait: Duration,
    mut in_vain: impl FnMut() -> bool,
) -> Result<Description, Refusal> {
    let name = CString::new(topic).map_err(|_| Refusal::of(RDKafkaRespErr::RD_KAFKA_RESP_ERR__INVALID_ARG))?;
    let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    let rk = client.client().native_ptr();
    // SAFETY: everything made here is destroyed here, in the reverse order, and nothing of it is kept.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut why = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, wait, why.as_mut_ptr(), why.len());
        let queue = sys::rd_kafka_queue_new(rk);
        sys::rd_kafka_DescribeTopics(rk, topics, options, queue);
        let mut event: *mut sys::rd_kafka_event_t = std::ptr::null_mut();
        // When the time is up, the answer says so: the request has it, too.
        while event.is_null() && !in_vain() {
            event = sys::rd_kafka_queue_poll(queue, GLANCE);
        }
        let answer = described(event);
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        answer
    }
}

/// # Safety
/// `event` is null or alive.
unsafe fn described(event: *mut sys::rd_kafka_event_t) -> Result<Description, Refusal> {
    if event.is_null() {
        return Err(Refusal::of(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT));
    }
    // SAFETY: the event is alive, and what it gives out lives as long; pointers are looked at before they are followed.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(Refusal { text: text_of(sys::rd_kafka_event_error_string(event)), ..Refusal::of(code) });
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let none = || Refusal::of(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        if result.is_null() {
            return Err(none());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 || topics.is_null() {
            return Err(none());
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code =
            if error.is_null() { RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR } else { sys::rd_kafka_error_code(error) };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(Refusal::of(code));
        }
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let is_zero = id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id) == 0
                && sys::rd_kafka_Uuid_least_significant_bits(id) == 0);
        let id = if is_zero { String::new() } else { text_of(sys::rd_kafka_Uuid_base64str(id)) };
        Ok(Description { id, partitions })
    }
}
