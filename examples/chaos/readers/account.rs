//! What each reader has done, for the summary.

use std::{fmt, mem};

use bridgebook::client::watch::Event;

use crate::verdict::{Kind, Verdict};

/// What one reader has done.
#[derive(Debug, Default)]
pub struct Account {
    /// Which reader it is.
    pub name: String,
    /// How many rows it has read; a consumer, how many it knows to have counted.
    pub rows: usize,
    /// How many streams it has opened after another one broke.
    pub resumed: usize,
    /// How often it was killed, and began anew.
    pub killed: usize,
    /// How often a consumer was told that another one was faster: STATE_CHANGED.
    pub overtaken: usize,
    /// Why it stopped before the end.
    pub failure: Option<String>,
    is_broken: bool,
}

impl Account {
    /// Opens the account of a reader.
    pub fn new(name: String) -> Self {
        Account {
            name,
            ..Account::default()
        }
    }

    /// Notes whether the stream breaks or goes on.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Interrupted(_) => self.is_broken = true,
            Event::Ready => self.resumed += usize::from(mem::take(&mut self.is_broken)),
            Event::Snapshot(_) | Event::Transitions(_) | Event::Bookmark(_) => {}
        }
    }

    /// Notes that the reader was killed.
    pub fn note_kill(&mut self) {
        self.killed += 1;
        self.is_broken = false;
    }

    /// Notes a reader that has stopped before the end.
    pub fn check(&self, verdict: &mut Verdict) {
        if let Some(failure) = &self.failure {
            verdict.add(Kind::Refused, format!("{}: {failure}", self.name), 1);
        }
    }
}

/// The accounts of all readers.
#[derive(Debug, Default)]
pub struct Accounts(pub Vec<Account>);

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| reader of the journal | rows | resumed | killed | STATE_CHANGED |\n|---|--:|--:|--:|--:|"
        )?;
        for it in &self.0 {
            let Account {
                name,
                rows,
                resumed,
                killed,
                overtaken,
                ..
            } = it;
            writeln!(
                f,
                "| {name} | {rows} | {resumed} | {killed} | {overtaken} |"
            )?;
        }
        Ok(())
    }
}
