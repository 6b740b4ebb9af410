//! What instances and versions have done in the last seconds.

use std::time::Instant;

use crate::instance::lane::CLASSES;
use crate::instance::{Instance, Lane, Roster};
use crate::observe::red::Sums;
use crate::observe::trend::{Counted, Rates};

impl Instance {
    /// What was answered; an attempt without an answer is an error as well as a 5xx.
    fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for lane in self.lanes() {
            counted.requests += answers(lane);
            counted.errors += lane.answers(CLASSES - 1) + lane.failures();
            counted.first_byte.add(lane.first_byte());
        }
        counted
    }

    /// Sets a mark for [`Instance::rates`]; to be called every 5 s.
    pub fn mark(&self, now: Instant) {
        self.trend.mark(&self.counted(), now);
    }

    /// Its answers of the last 5 to 10 s.
    pub fn rates(&self, now: Instant) -> Rates {
        self.trend.rates(&self.counted(), now)
    }

    /// The same, requests per second alone.
    pub fn pace(&self, now: Instant) -> f64 {
        self.trend.pace(self.lanes().iter().map(answers).sum(), now)
    }
}

impl Roster {
    fn counted(&self) -> Counted {
        let sums = Sums::of(self.reds());
        Counted { requests: sums.requests(), errors: sums.errors, first_byte: sums.first_byte }
    }

    /// Sets a mark for [`Roster::rates`]; to be called every 5 s.
    pub fn mark(&self, now: Instant) {
        self.trend.mark(&self.counted(), now);
    }

    /// The requests of its clients in the last 5 to 10 s.
    pub fn rates(&self, now: Instant) -> Rates {
        self.trend.rates(&self.counted(), now)
    }
}

fn answers(lane: &Lane) -> u64 {
    (0..CLASSES).map(|class| lane.answers(class)).sum()
}
