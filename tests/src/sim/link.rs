//! The virtual network: connections that keep the order within themselves, take their time, and break.

use std::collections::VecDeque;

use tidegate_common::ids::SessionId;
use tidegate_common::ids::{BackfillId, TaskId, Token};
use tidegate_coordinator::core::{CursorReport, FoundSegment, Registration};
use tidegate_proto::v1;

use super::mishap::Mishap;
use super::scenario::{LEASE, MILLI, Micros, SECOND};
use super::world::{Event, World};

/// Which task a worker speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) id: BackfillId,
    pub(super) task: TaskId,
    pub(super) token: Token,
}

/// What a worker says.
#[derive(Clone, Debug)]
pub(super) enum Up {
    Register(Registration),
    Heartbeat(u64, Vec<CursorReport>, bool),
    HandIn(Grant, v1::HandIn, bool),
    Segment(Grant, FoundSegment),
    Done(Grant, v1::done::Result),
    Fail(Grant, v1::Evidence),
    Release(Grant),
}

/// What a coordinator says.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Welcome,
    Kind(Box<v1::from_coordinator::Kind>),
}

/// A connection of a worker to a coordinator.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) worker: usize,
    pub(super) incarnation: u32,
    pub(super) coordinator: usize,
    /// As the coordinator counts it, once it has heard the Register.
    pub(super) session: Option<SessionId>,
    pub(super) up: VecDeque<Up>,
    pub(super) down: VecDeque<Down>,
    up_free: Micros,
    down_free: Micros,
    /// When the worker sent its Register, on its own clock.
    pub(super) registered: Micros,
    /// When the coordinator last heard a Register or a heartbeat.
    pub(super) renewed: Micros,
    /// Whether what is sent still arrives.
    pub(super) whole: bool,
}

impl Link {
    pub(super) fn new(worker: usize, incarnation: u32, coordinator: usize, registered: Micros) -> Self {
        Self {
            worker,
            incarnation,
            coordinator,
            session: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            up_free: 0,
            down_free: 0,
            registered,
            renewed: 0,
            whole: true,
        }
    }
}

impl World {
    /// A worker sends on a connection.
    pub(super) fn send_up(&mut self, link: usize, message: Up) {
        if !self.links[link].whole {
            return;
        }
        let at = self.arrival(self.links[link].up_free);
        self.links[link].up_free = at;
        self.links[link].up.push_back(message);
        self.agenda.put(at, Event::Up(link));
    }

    /// A coordinator sends on a connection.
    pub(super) fn send_down(&mut self, link: usize, message: Down) {
        if !self.links[link].whole {
            return;
        }
        let at = self.arrival(self.links[link].down_free);
        self.links[link].down_free = at;
        self.links[link].down.push_back(message);
        self.agenda.put(at, Event::Down(link));
    }

    /// What a worker sends from now on arrives late.
    pub(super) fn stick(&mut self, link: usize) {
        let late = self.chance.between(LEASE / 2, 7 * LEASE);
        let free = &mut self.links[link].up_free;
        *free = (*free).max(self.now + late);
    }

    fn arrival(&mut self, free: Micros) -> Micros {
        let slow = self.strikes(Mishap::SlowMessage, 8);
        let takes = if slow { self.chance.between(SECOND, 4 * SECOND) } else { self.chance.between(200, 20 * MILLI) };
        (self.now + takes).max(free)
    }

    /// A connection breaks: what is on the way is lost, or a part of it; each end notices in its own time.
    pub(super) fn break_link(&mut self, link: usize, half_open: bool) {
        let of = &mut self.links[link];
        if !of.whole {
            return;
        }
        of.whole = false;
        let arrives = usize::try_from(self.chance.below(of.up.len() as u64 + 1)).unwrap_or(0);
        of.up.truncate(arrives);
        let arrives = usize::try_from(self.chance.below(of.down.len() as u64 + 1)).unwrap_or(0);
        of.down.truncate(arrives);
        let (mut worker, mut coordinator) = (self.chance.below(SECOND), self.chance.below(SECOND));
        if half_open {
            let late = self.chance.between(2 * SECOND, 25 * SECOND);
            *if self.chance.one_in(2) { &mut worker } else { &mut coordinator } += late;
        }
        // What was read off the wire before the end is still dealt with before the end is.
        let (up_free, down_free) = (self.links[link].up_free, self.links[link].down_free);
        self.agenda.put((self.now + coordinator).max(up_free), Event::CoordinatorNotices(link));
        self.agenda.put((self.now + worker).max(down_free), Event::WorkerNotices(link));
    }
}
