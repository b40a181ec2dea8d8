//! Settings that accept any text, so that all errors are reported together.
//!
//! clap stops at the first value that does not parse. Therefore these types only keep the text, and
//! [`take!`] parses it and notes the error.

use std::{marker::PhantomData, net::SocketAddr, time::Duration};

use clap::ValueEnum;

use crate::util::net::Networks;

/// The longest duration in seconds: a day.
const DAY: u64 = 86_400;

/// Everything that is wrong with the settings, one line for each error.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// Notes an error.
    pub fn push(&mut self, error: impl Into<String>) {
        self.0.push(error.into());
    }

    /// Returns `value` if no error was noted.
    ///
    /// # Errors
    /// All errors that were noted.
    pub fn finish<T>(self, value: T) -> Result<T, Self> {
        match self.0.is_empty() {
            true => Ok(value),
            false => Err(self),
        }
    }

    /// Parses the setting of a field. Notes an error under the name of the field's flag and
    /// returns a placeholder.
    pub(super) fn take<T: Default>(&mut self, field: &str, setting: &impl Setting<T>) -> T {
        setting.parse().unwrap_or_else(|error| {
            self.push(format!("--{}: {error}", field.replace('_', "-")));
            T::default()
        })
    }
}

impl From<Vec<String>> for ConfigErrors {
    fn from(errors: Vec<String>) -> Self {
        ConfigErrors(errors)
    }
}

/// Parses a field of the settings, whose flag has the same name.
macro_rules! take {
    ($errors:ident, $settings:ident.$field:ident) => {
        $errors.take(stringify!($field), &$settings.$field)
    };
}
pub(super) use take;

/// A setting that is parsed to a `T`.
pub(super) trait Setting<T> {
    /// Returns the value, or what was expected and what was given.
    fn parse(&self) -> Result<T, String>;
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone)]
pub(super) struct Number<const MIN: u64, const MAX: u64>(String);

/// A number of seconds from `MIN` to a day.
#[derive(Debug, Clone)]
pub(super) struct Seconds<const MIN: u64 = 1>(Number<MIN, DAY>);

/// An address with a port. `localhost` stands for 127.0.0.1.
#[derive(Debug, Clone)]
pub(super) struct Address(String);

/// Networks, separated by commas. An empty text stands for none.
#[derive(Debug, Clone)]
pub(super) struct NetworkList(String);

/// A switch. The flag alone turns it on.
#[derive(Debug, Clone)]
pub(super) struct Switch(String);

/// One of the names of a `T`. An empty text stands for none.
#[derive(Debug, Clone)]
pub(super) struct Choice<T>(String, PhantomData<T>);

impl From<String> for Switch {
    fn from(text: String) -> Self {
        Switch(text)
    }
}

impl<T> From<String> for Choice<T> {
    fn from(text: String) -> Self {
        Choice(text, PhantomData)
    }
}

impl<const MIN: u64, const MAX: u64> From<String> for Number<MIN, MAX> {
    fn from(text: String) -> Self {
        Number(text)
    }
}

impl<const MIN: u64> From<String> for Seconds<MIN> {
    fn from(text: String) -> Self {
        Seconds(text.into())
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Address(text)
    }
}

impl From<String> for NetworkList {
    fn from(text: String) -> Self {
        NetworkList(text)
    }
}

impl Address {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> Setting<T> for Number<MIN, MAX> {
    fn parse(&self) -> Result<T, String> {
        let Number(text) = self;
        let number = text.parse().ok().filter(|it| (MIN..=MAX).contains(it));
        let value = number.and_then(|number| T::try_from(number).ok());
        value.ok_or_else(|| format!("expected a whole number from {MIN} to {MAX}, got {text:?}"))
    }
}

impl<const MIN: u64> Setting<Duration> for Seconds<MIN> {
    fn parse(&self) -> Result<Duration, String> {
        self.0.parse().map(Duration::from_secs)
    }
}

impl Setting<bool> for Switch {
    fn parse(&self) -> Result<bool, String> {
        let Switch(text) = self;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "t" | "1" => Ok(true),
            "false" | "no" | "off" | "n" | "f" | "0" => Ok(false),
            _ => Err(format!("expected true or false, got {text:?}")),
        }
    }
}

impl<T: ValueEnum> Setting<Option<T>> for Choice<T> {
    fn parse(&self) -> Result<Option<T>, String> {
        let Choice(text, _) = self;
        // Some tools set a variable to nothing instead of unsetting it.
        if text.is_empty() {
            return Ok(None);
        }
        T::from_str(text, false).map(Some).map_err(|_| {
            let values = T::value_variants().iter();
            let names =
                values.filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()));
            let names = names.collect::<Vec<_>>().join(" or ");
            format!("expected {names}, got {text:?}")
        })
    }
}

impl Setting<Option<SocketAddr>> for Address {
    fn parse(&self) -> Result<Option<SocketAddr>, String> {
        let Address(text) = self;
        let address = text.replace("localhost:", "127.0.0.1:").parse();
        address.map(Some).map_err(|_| {
            format!("expected an address with a port such as 127.0.0.1:50051, got {text:?}")
        })
    }
}

impl Setting<Networks> for NetworkList {
    fn parse(&self) -> Result<Networks, String> {
        let NetworkList(text) = self;
        text.parse().map_err(|_| {
            format!("expected networks such as 10.0.0.0/8,2001:db8::/32, got {text:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Settings {
        call_timeout: Seconds,
        max_streams: Number<1, 9>,
    }

    #[test]
    fn an_error_names_the_flag_the_range_and_the_value() {
        let settings = Settings {
            call_timeout: "abc".to_owned().into(),
            max_streams: "10".to_owned().into(),
        };
        let mut errors = ConfigErrors::default();
        let timeout: Duration = take!(errors, settings.call_timeout);
        let streams: u32 = take!(errors, settings.max_streams);
        assert_eq!(
            errors.finish((timeout, streams)).unwrap_err().to_string(),
            "--call-timeout: expected a whole number from 1 to 86400, got \"abc\"\n\
             --max-streams: expected a whole number from 1 to 9, got \"10\""
        );
    }

    #[test]
    fn the_bounds_of_a_range_are_valid() {
        for (text, expected) in [("0", None), ("1", Some(1)), ("9", Some(9)), ("-1", None)] {
            let parsed: Option<u32> = Number::<1, 9>::from(text.to_owned()).parse().ok();
            assert_eq!(parsed, expected, "{text}");
        }
    }
}
