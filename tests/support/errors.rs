//! Errors that a service under test logs in this process.

use std::{
    collections::HashMap,
    fmt,
    sync::{LazyLock, Mutex},
};

use tokio::runtime::{Handle, Id};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::LevelFilter,
    layer::{Context, SubscriberExt},
};

/// Each test has a runtime of its own, so a runtime's id tells whose error it is.
static LOGGED: LazyLock<Mutex<HashMap<Id, Vec<String>>>> = LazyLock::new(Mutex::default);

struct Errors;

/// Starts to collect events of the level ERROR. Returns the id of the current runtime.
pub fn collect() -> Id {
    static INSTALLED: LazyLock<()> = LazyLock::new(|| {
        let subscriber = Registry::default().with(Errors.with_filter(LevelFilter::ERROR));
        tracing::subscriber::set_global_default(subscriber).expect("no other subscriber");
    });
    LazyLock::force(&INSTALLED);
    Handle::current().id()
}

/// Returns the errors that were logged on a runtime since the last call.
pub fn take(runtime: Id) -> Vec<String> {
    let mut logged = LOGGED.lock().unwrap();
    logged.remove(&runtime).unwrap_or_default()
}

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if !target.starts_with("bridgebook") {
            return;
        }
        let mut text = Text(target.to_owned());
        event.record(&mut text);
        let mut logged = LOGGED.lock().unwrap();
        logged.entry(runtime.id()).or_default().push(text.0);
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}
