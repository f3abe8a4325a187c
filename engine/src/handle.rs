//! Public handles of an engine, and the channels to its thread.

mod life;
mod published;
mod queue;
mod request_handle;

use crate::admission_limit::{AdmissionLimit, WaitingPlace};
use crate::config::{EngineConfig, Fitted};
use crate::draft_settings::DraftConfig;
use crate::drafting::Drafting;
use crate::error::{StartError, SubmitError};
use crate::event::Submitted;
use crate::event_sink::EventSink;
use crate::fingerprint;
use crate::output::TextCodec;
use crate::request::{Request, RequestLimits, ValidRequest};
use crate::stats::Stats;
use crate::step::EngineCore;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};
use galley_backend::KvShape;
use galley_model::LanguageModel;
use galley_model::config::ModelConfig;
use galley_model::tokenizer::Tokenizer;
use life::{Command, RequestKey, Submission, run};
use published::Published;
pub use published::Watch;
pub use queue::EventQueue;
pub use request_handle::RequestHandle;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running engine. Clones are handles to the same engine. When the last handle is dropped, the
/// engine [shuts down](Engine::shutdown).
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    commands: Sender<Command>,
    limits: RequestLimits,
    codec: Option<Arc<dyn TextCodec>>,
    config: EngineConfig,
    model: ModelInfo,
    drafters: Vec<String>,
    admission: Arc<AdmissionLimit>,
    is_draining: RwLock<bool>,
    n_requests: AtomicU64,
    published: Arc<Published>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The model that an engine runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Its configuration.
    pub config: ModelConfig,
    /// Shape of its KV pool.
    pub kv_shape: KvShape,
    /// Device, instruction set and threads, as text for people.
    pub device: String,
    /// Bytes of packed weights.
    pub weight_bytes: usize,
    /// Bytes of packed weights that a step reads: all but an embedding that is not the output head.
    pub step_weight_bytes: usize,
}

impl Engine {
    /// Starts the engine thread for a model. Without a tokenizer, prompts and output are tokens.
    /// Settings are cut to the model's limits; [`Engine::config`] returns the result. Fails if the
    /// model was loaded with sizes that allow no step, or if the system starts no thread.
    pub fn start(
        model: Box<dyn LanguageModel>,
        tokenizer: Option<Arc<Tokenizer>>,
        config: EngineConfig,
    ) -> Result<Engine, StartError> {
        Engine::start_with_drafters(model, tokenizer, config, &DraftConfig::default())
    }

    /// [`Engine::start`] with drafters. Also fails if a drafter cannot run over this model.
    pub fn start_with_drafters(
        mut model: Box<dyn LanguageModel>,
        tokenizer: Option<Arc<Tokenizer>>,
        config: EngineConfig,
        drafting: &DraftConfig,
    ) -> Result<Engine, StartError> {
        let sizes = config.fit(&*model)?;
        let drafting = Drafting::start(drafting, &mut *model, tokenizer.as_deref(), &sizes)?;
        let codec = tokenizer.map(|tokenizer| tokenizer as Arc<dyn TextCodec>);
        Engine::start_with(model, codec, sizes, drafting, std::thread::Builder::new())
    }

    pub(crate) fn start_with(
        model: Box<dyn LanguageModel>,
        codec: Option<Arc<dyn TextCodec>>,
        sizes: Fitted,
        drafting: Drafting,
        thread: std::thread::Builder,
    ) -> Result<Engine, StartError> {
        let target = model.target();
        let info = ModelInfo {
            config: target.config.clone(),
            kv_shape: target.kv_shape,
            device: model.device(),
            weight_bytes: target.weight_bytes,
            step_weight_bytes: target.step_weight_bytes,
        };
        let mut limits = EngineCore::limits(&*model, &sizes, &drafting);
        if let Some(codec) = &codec {
            limits.end_tokens = codec.end_tokens(&info.config);
        }
        limits.fingerprint =
            fingerprint::of_model(model.target(), codec.as_deref(), &limits.end_tokens);
        let drafters = limits.drafting.drafters.iter().map(|drafter| drafter.name.clone());
        let drafters = drafters.collect();
        let core = EngineCore::new(model, codec.clone(), &sizes, drafting);
        let (sender, commands) = unbounded();
        let published = Arc::new(Published::default());
        let life = {
            let published = Arc::clone(&published);
            move || run(core, &commands, &published)
        };
        let thread = thread.name("galley-engine".into()).spawn(life).map_err(StartError::Thread)?;
        Ok(Engine {
            inner: Arc::new(Inner {
                commands: sender,
                limits,
                codec,
                admission: AdmissionLimit::new(sizes.config.max_waiting),
                config: sizes.config,
                model: info,
                drafters,
                is_draining: RwLock::new(false),
                n_requests: AtomicU64::new(0),
                published,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Checks a request and sends it to the engine thread. Text is tokenised on the caller's thread.
    pub fn submit(&self, request: impl Into<Request>) -> Result<RequestHandle, SubmitError> {
        let mut handles = self.submit_all([request.into()])?;
        Ok(handles.pop().expect("one request was submitted"))
    }

    /// [`Engine::submit`] for several requests, which the engine receives before the same step. If
    /// one request is refused, none is submitted. Handles are in the order of the requests.
    pub fn submit_all(
        &self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<Vec<RequestHandle>, SubmitError> {
        self.submit_each(requests.into_iter().collect(), |accepted| {
            let Accepted { key, request, submitted, place } = accepted;
            let (events, receiver) = unbounded();
            let commands = self.inner.commands.clone();
            let n_open = request.n;
            let handle = RequestHandle { key, submitted, n_open, events: receiver, commands };
            let events = EventSink::Handle(events);
            (handle, Submission { key, request, place, events, started: None })
        })
    }

    /// Checks requests and sends them to the engine thread, each as `begin` makes it. Returns the first
    /// results of `begin`.
    fn submit_each<T>(
        &self,
        requests: Vec<Request>,
        begin: impl FnMut(Accepted) -> (T, Submission),
    ) -> Result<Vec<T>, SubmitError> {
        // Held until the requests are on their way, so that a drain waits for all accepted ones.
        let is_draining = self.inner.is_draining.read().unwrap_or_else(PoisonError::into_inner);
        if *is_draining {
            let reason = "it is draining, and accepts no more requests";
            return Err(SubmitError::Stopped(reason.into()));
        }
        let (all, submissions): (Vec<T>, Vec<Submission>) =
            self.accept(requests)?.into_iter().map(begin).unzip();
        self.send(submissions)?;
        Ok(all)
    }

    /// Checks requests, gives them numbers, and takes their places among the waiting ones.
    fn accept(&self, requests: Vec<Request>) -> Result<Vec<Accepted>, SubmitError> {
        let inner = &*self.inner;
        let places = inner.admission.take(requests.len())?;
        let accept = |(request, place)| {
            let request = ValidRequest::new(request, &inner.limits, inner.codec.as_deref())?;
            let number = inner.n_requests.fetch_add(1, Ordering::Relaxed);
            let submitted = Submitted {
                id: number,
                seed: request.seed,
                prompt_tokens: request.tokens[..request.n_prompt].into(),
                fingerprint: Arc::clone(&inner.limits.fingerprint),
                resumed_text: request.output.final_text.clone(),
            };
            let key = RequestKey { priority: request.priority, number };
            Ok(Accepted { key, request, submitted, place })
        };
        requests.into_iter().zip(places).map(accept).collect()
    }

    fn send(&self, submissions: Vec<Submission>) -> Result<(), SubmitError> {
        self.inner.commands.send(Command::Submit(submissions)).map_err(|unsent| {
            if let Command::Submit(submissions) = unsent.into_inner() {
                submissions.iter().for_each(|submission| submission.events.take_back());
            }
            let why = lock(&self.inner.published.stopped).clone();
            SubmitError::Stopped(why.unwrap_or_else(|| "it was shut down".into()))
        })
    }

    /// A queue for the events of many requests. When `capacity` events are unread, its sequences are
    /// paused until they are read. `wake` is called on the engine's thread; it must return soon, and
    /// must not panic or own the queue.
    pub fn event_queue(
        &self,
        capacity: usize,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> EventQueue {
        EventQueue::new(self.clone(), capacity, Box::new(wake))
    }

    /// Refuses requests from now on, and waits until all accepted ones have ended. Returns false
    /// after `timeout`; the accepted requests go on then. [`Engine::shutdown`] ends the engine.
    pub fn drain(&self, timeout: Duration) -> bool {
        *self.inner.is_draining.write().unwrap_or_else(PoisonError::into_inner) = true;
        let (sender, drained) = bounded(1);
        if self.inner.commands.send(Command::Drain(sender)).is_err() {
            return true; // the engine has stopped
        }
        // The other end is dropped without a message when the engine stops.
        drained.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout)
    }

    /// The names of the engine's drafters. [`TokenSource::Draft`](crate::TokenSource::Draft) and
    /// [`Stats::drafters`] have their indices.
    pub fn drafters(&self) -> &[String] {
        &self.inner.drafters
    }

    /// Names all that the output depends on beside the request: version, model, formats, and the
    /// arithmetic of the device. Engines with the same fingerprint generate the same bytes.
    pub fn fingerprint(&self) -> &Arc<str> {
        &self.inner.limits.fingerprint
    }

    /// Statistics as of the last step.
    pub fn stats(&self) -> Stats {
        lock(&self.inner.published.stats).clone()
    }

    /// Statistics of every step from now on. A later call ends this [`Watch`].
    pub fn watch(&self) -> Watch {
        Watch::new(&self.inner.published)
    }

    /// The engine's model.
    pub fn model(&self) -> &ModelInfo {
        &self.inner.model
    }

    /// The settings, after fitting to the model.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// The most tokens that a sequence can have, prompt and output together.
    pub fn max_tokens_of_sequence(&self) -> usize {
        self.inner.limits.max_tokens_of_sequence()
    }

    /// Cancels all requests and waits for the engine thread to end. Later requests are refused.
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }
}

impl Inner {
    fn shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown);
        let thread = lock(&self.thread).take();
        // The engine's own thread drops the last handle if a wake function owned it.
        let is_other =
            |thread: &JoinHandle<()>| thread.thread().id() != std::thread::current().id();
        if let Some(thread) = thread.filter(is_other) {
            // The thread does not end by a panic: `run` catches panics.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Locks a mutex, poisoned or not: a panic leaves the values behind these locks whole, which are
/// replaced or changed by single calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that was accepted and is not on its way yet.
struct Accepted {
    key: RequestKey,
    request: ValidRequest,
    submitted: Submitted,
    place: WaitingPlace,
}
