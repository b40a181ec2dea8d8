//! A budget that grows with time: a token bucket that may go into debt.

use std::time::Duration;

use tokio::time::Instant;

/// A budget that grows with time up to a maximum.
pub struct Budget {
    level: f64,
    max: f64,
    per_second: f64,
}

impl Budget {
    /// Makes a budget that grows from `level`.
    #[must_use]
    pub fn new(level: f64, max: f64, per_second: f64) -> Self {
        Budget {
            level,
            max,
            per_second,
        }
    }

    /// Adds to the budget, beside what it gains with time.
    pub fn gain(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.max);
    }

    /// Takes from the budget, even more than there is.
    pub fn spend(&mut self, amount: f64) {
        self.level -= amount;
    }

    /// Adds what the budget gains in this time.
    pub fn pass(&mut self, time: Duration) {
        self.gain(time.as_secs_f64() * self.per_second);
    }

    /// Returns the time until the budget is no longer exhausted, if it is.
    #[must_use]
    pub fn debt(&self) -> Option<Duration> {
        (self.level < 0.0).then(|| Duration::from_secs_f64(-self.level / self.per_second))
    }
}

/// A budget that keeps the time itself.
pub struct TimedBudget {
    budget: Budget,
    at: Instant,
}

impl TimedBudget {
    /// Starts the time of a budget.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        TimedBudget {
            budget,
            at: Instant::now(),
        }
    }

    /// Takes one from the budget. Returns false if there is less.
    pub fn try_spend_one(&mut self) -> bool {
        self.catch_up();
        let is_enough = self.budget.level >= 1.0;
        if is_enough {
            self.budget.spend(1.0);
        }
        is_enough
    }

    /// Takes one from the budget, even if there is less. Returns the time until it is paid for, if it is
    /// not.
    pub fn spend_one(&mut self) -> Option<Duration> {
        self.catch_up();
        self.budget.spend(1.0);
        self.budget.debt()
    }

    /// Returns whether the budget has its maximum.
    pub fn is_full(&mut self) -> bool {
        self.catch_up();
        self.budget.level >= self.budget.max
    }

    fn catch_up(&mut self) {
        let now = Instant::now();
        self.budget.pass(now - self.at);
        self.at = now;
    }
}
