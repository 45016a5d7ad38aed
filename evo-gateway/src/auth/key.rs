//! A virtual key at work: what it may do, and what it has in hand. Everything is in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};

use super::{
    allowance::Allowance,
    rules::Rules,
    spent::{Account, Ledger, NanoUsd, Period, nano, usd},
};

/// When another try of a request makes sense that was one too many at the same time.
const CONCURRENCY_WAIT: Duration = Duration::from_secs(1);

/// One virtual key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Whose it is.
    pub(crate) name: Arc<str>,
    /// Words that its usage can be grouped by.
    pub(crate) tags: Arc<[String]>,
    rules: Rules,
    requests: Option<Arc<Allowance>>,
    tokens: Option<Arc<Allowance>>,
    /// Requests under way.
    open: Arc<AtomicU32>,
    account: Arc<Account>,
}

/// Why a key's request does not pass.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Exceeded {
    /// Too many requests, in this time.
    Requests(u64, Duration),
    /// Too many tokens, in this time.
    Tokens(u64, Duration),
    /// Too many at the same time.
    Concurrency(u32),
    /// Its budget is used up.
    Budget {
        /// `day` or `month`.
        period: &'static str,
        /// In USD.
        budget: f64,
        /// When the next period begins.
        ends: DateTime<Utc>,
    },
}

impl Exceeded {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Requests(..) | Self::Tokens(..) | Self::Concurrency(_) => "rate_limit_exceeded",
            Self::Budget { .. } => "budget_exceeded",
        }
    }

    /// When another try makes sense.
    pub(crate) fn wait(&self) -> Duration {
        match self {
            Self::Requests(_, wait) | Self::Tokens(_, wait) => *wait,
            Self::Concurrency(_) => CONCURRENCY_WAIT,
            Self::Budget { ends, .. } => (*ends - Utc::now()).to_std().unwrap_or_default(),
        }
    }

    /// For people, about the key of this name.
    pub(crate) fn message(&self, key: &str) -> String {
        let seconds = self.wait().as_secs() + 1;
        match self {
            Self::Requests(most, _) => format!(
                "The key {key:?} may send {most} requests per minute; try again in {seconds} s."
            ),
            Self::Tokens(most, _) => format!(
                "The key {key:?} may use {most} tokens per minute; try again in {seconds} s."
            ),
            Self::Concurrency(most) => format!(
                "The key {key:?} may have {most} requests under way; try again when one has ended."
            ),
            Self::Budget { period, budget, ends } => format!(
                "The key {key:?} has spent its budget of {budget} USD for this {period}; the next \
                 {period} begins at {}.",
                ends.format("%Y-%m-%dT%H:%MZ")
            ),
        }
    }
}

/// What is known of a request before it is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// Tokens of the question.
    pub(crate) tokens: u64,
    /// What they cost.
    pub(crate) cost: NanoUsd,
}

impl Key {
    /// A key by its rules. What the one before it of the same name had in hand stays, and what it was
    /// allowed per minute as far as that has not changed.
    pub(crate) fn new(name: &str, rules: Rules, before: Option<&Self>, ledger: &Ledger) -> Self {
        let allowance = |per_minute: Option<u64>, old: Option<&Arc<Allowance>>| {
            let per_minute = per_minute?;
            let same = old.filter(|old| old.per_minute() == per_minute).cloned();
            Some(same.unwrap_or_else(|| Arc::new(Allowance::new(per_minute))))
        };
        let old_requests = before.and_then(|key| key.requests.as_ref());
        let old_tokens = before.and_then(|key| key.tokens.as_ref());
        Self {
            name: name.into(),
            tags: rules.tags.clone().into(),
            requests: allowance(rules.rpm.map(u64::from), old_requests),
            tokens: allowance(rules.tpm, old_tokens),
            open: before.map(|key| key.open.clone()).unwrap_or_default(),
            account: ledger.account(name),
            rules,
        }
    }

    /// Whether its time is over.
    pub(crate) fn has_expired(&self) -> bool {
        self.rules.expires_at.is_some_and(|end| end <= Utc::now())
    }

    /// Whether a model may be asked for.
    pub(crate) fn allows(&self, asked: &str, provider: &str, model: &str) -> bool {
        self.rules.allows(asked, provider, model)
    }

    /// Whether the size of a request has to be known before it is let in.
    pub(crate) fn wants_estimate(&self) -> bool {
        self.tokens.is_some() || self.has_budget()
    }

    fn has_budget(&self) -> bool {
        self.rules.budget_usd_per_day.is_some() || self.rules.budget_usd_per_month.is_some()
    }

    /// Lets a request in, or not.
    pub(crate) fn admit(self: &Arc<Self>, estimate: Estimate) -> Result<Ticket, Exceeded> {
        self.open.fetch_add(1, Ordering::Relaxed);
        // From here on whatever is taken is given back when the ticket is dropped.
        let mut ticket =
            Ticket { key: self.clone(), tokens: 0, cost: 0, request: false, used: false };
        if let Some(most) = self.rules.concurrency
            && self.open.load(Ordering::Relaxed) > most
        {
            return Err(Exceeded::Concurrency(most));
        }
        if self.has_budget() {
            let budgets = self.budgets(Utc::now());
            let limits = budgets.iter().map(|(period, budget)| (period, nano(*budget)));
            self.account.reserve(estimate.cost, limits).map_err(|period| Exceeded::Budget {
                period: period.name,
                budget: self.budget_of(period).unwrap_or_default(),
                ends: period.ends,
            })?;
            ticket.cost = estimate.cost;
        }
        if let Some(requests) = &self.requests {
            let most = requests.per_minute();
            requests.take(1).map_err(|wait| Exceeded::Requests(most, wait))?;
            ticket.request = true;
        }
        if let Some(tokens) = &self.tokens {
            let most = tokens.per_minute();
            tokens.take(estimate.tokens).map_err(|wait| Exceeded::Tokens(most, wait))?;
            ticket.tokens = estimate.tokens;
        }
        Ok(ticket)
    }

    /// Its budgets, each with the period around `now`.
    pub(crate) fn budgets(&self, now: DateTime<Utc>) -> Vec<(Period, f64)> {
        let Rules { budget_usd_per_day: per_day, budget_usd_per_month: per_month, .. } = self.rules;
        let hour = self.rules.reset_hour.unwrap_or(0);
        let day = || Period::day(now, hour);
        let month = || Period::month(now, self.rules.reset_day.unwrap_or(1), hour);
        let per_day = per_day.map(|budget| (day(), budget));
        per_day.into_iter().chain(per_month.map(|budget| (month(), budget))).collect()
    }

    fn budget_of(&self, period: &Period) -> Option<f64> {
        match period.name {
            "day" => self.rules.budget_usd_per_day,
            _ => self.rules.budget_usd_per_month,
        }
    }

    /// What it has spent in a period, in USD.
    pub(crate) fn spent(&self, period: &Period) -> f64 {
        usd(self.account.spent(period))
    }

    /// Requests under way.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }
}

/// A request that was let in. What was reserved for it is settled when it is over.
#[derive(Debug)]
pub(crate) struct Ticket {
    key: Arc<Key>,
    tokens: u64,
    cost: NanoUsd,
    /// One of the requests per minute was taken.
    request: bool,
    /// It went on to a provider, or was answered.
    used: bool,
}

impl Ticket {
    /// The request is over and took so much.
    pub(crate) fn settle(mut self, tokens: u64, cost: NanoUsd) {
        self.used = true;
        if let Some(allowance) = &self.key.tokens {
            if tokens > self.tokens {
                allowance.overdraw(tokens - self.tokens);
            } else {
                allowance.give_back(self.tokens - tokens);
            }
        }
        self.key.account.spend(Utc::now(), cost);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.key.open.fetch_sub(1, Ordering::Relaxed);
        if self.cost > 0 {
            self.key.account.free(self.cost);
        }
        if self.used {
            return;
        }
        if let Some(requests) = self.key.requests.as_ref().filter(|_| self.request) {
            requests.give_back(1);
        }
        if let Some(tokens) = &self.key.tokens {
            tokens.give_back(self.tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(rules: &str, ledger: &Ledger) -> Arc<Key> {
        Arc::new(Key::new("ci", serde_json::from_str(rules).unwrap(), None, ledger))
    }

    fn of(tokens: u64, cost: NanoUsd) -> Estimate {
        Estimate { tokens, cost }
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_refuses_by_itself_and_takes_nothing_from_the_others() {
        let ledger = Ledger::default();
        let key = key(r#"{"rpm": 3, "tpm": 600, "concurrency": 2}"#, &ledger);
        let (first, second) = (key.admit(of(100, 0)).unwrap(), key.admit(of(100, 0)).unwrap());
        assert_eq!(key.admit(of(1, 0)).unwrap_err(), Exceeded::Concurrency(2));
        first.settle(500, 0);
        // 600 of 600 tokens are used, and the request was given back with the refusal.
        let full = Exceeded::Tokens(600, Duration::from_secs(10));
        assert_eq!(key.admit(of(100, 0)).unwrap_err(), full);
        second.settle(0, 0);
        key.admit(of(100, 0)).unwrap().settle(100, 0);
        let Err(Exceeded::Requests(3, wait)) = key.admit(of(1, 0)) else { panic!("a fourth") };
        assert_eq!(wait, Duration::from_secs(20));
        assert_eq!(key.open(), 0);
        tokio::time::advance(wait).await;
        drop(key.admit(of(1, 0)).unwrap());
        assert!(key.admit(of(1, 0)).is_ok(), "one that went nowhere does not count");
    }

    #[test]
    fn a_budget_is_spent_and_said_to_be() {
        let ledger = Ledger::default();
        let key = key(r#"{"budget_usd_per_day": 0.5, "budget_usd_per_month": 10}"#, &ledger);
        assert!(key.wants_estimate());
        key.admit(of(10, 0)).unwrap().settle(1_000, nano(0.4));
        // While one is under way its question counts.
        let under_way = key.admit(of(10, nano(0.2))).unwrap();
        let refused = key.admit(of(10, 0)).unwrap_err();
        assert_eq!(refused.code(), "budget_exceeded");
        let message = refused.message("ci");
        assert!(message.contains("0.5 USD for this day"), "{message}");
        assert!(refused.wait() <= Duration::from_secs(86_400));
        drop(under_way);
        key.admit(of(10, 0)).unwrap().settle(10, nano(0.1));
        assert!(key.admit(of(10, 0)).is_err());
        let (day, _) = &key.budgets(Utc::now())[0];
        assert!((key.spent(day) - 0.5).abs() < 1e-9);
        // Made again under the same name it goes on, with whatever it is given then.
        let rules: Rules = serde_json::from_str(r#"{"budget_usd_per_day": 1}"#).unwrap();
        let again = Arc::new(Key::new("ci", rules, Some(&key), &ledger));
        assert!(again.admit(of(10, 0)).is_ok());
        assert!(key.admit(of(10, 0)).is_err());
    }
}
