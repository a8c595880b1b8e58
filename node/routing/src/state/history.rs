//! Intents as they were: what each entry changed, so that it can be undone.
//!
//! Per service cluster the state holds the intents in force and, for the entries that
//! last changed one, what was there before. Walking back from the newest rebuilds the
//! intents after any index still kept. Scaling changes no intent, and uses none up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::State;
use super::line::Line;
use crate::codec::InvalidBytes;
use crate::command::Share;
use crate::entry::LogIndex;
use crate::intent::{Intents, RouteIntent};
use crate::names::ServiceCluster;
use crate::snapshot::{Route, RouteKey};

/// Entries that changed intents of one service cluster and can be undone.
pub const INTENT_CHANGES_MAX: usize = 1_000;
/// Routes in those changes together; the newest change is kept whatever it holds.
pub const INTENT_CHANGE_ROUTES_MAX: usize = 40_000;

/// Routes by key, each with an intent, or without one: those before an entry.
pub(super) type Undo = Vec<(RouteKey, Option<Arc<RouteIntent>>)>;

/// The last entry that cannot be undone, and what those after it changed.
pub(super) type Kept = (LogIndex, OrdMap<LogIndex, Arc<Undo>>);

/// The intents of one service cluster, and how they came about.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// In force. Derived from lines and canaries, never encoded.
    now: OrdMap<RouteKey, Arc<RouteIntent>>,
    /// By the entry that changed them.
    undo: OrdMap<LogIndex, Arc<Undo>>,
    /// The last entry that can no longer be undone; 0 when all can.
    base: LogIndex,
    /// Routes in `undo`: derived.
    routes: usize,
}

/// Why the intents at an index cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    #[error("index {given} is in the future: the last entry is {applied}")]
    Future { given: LogIndex, applied: LogIndex },
    #[error("index {given} is older than what is kept: intents are known from index {base} on")]
    Older { given: LogIndex, base: LogIndex },
}

impl History {
    /// The intents that were encoded, but for those in force.
    pub(super) fn new((base, undo): Kept) -> Self {
        let routes = undo.values().map(|undo| undo.len()).sum();
        Self { base, undo, routes, ..Self::default() }
    }

    /// What is encoded.
    pub(super) fn kept(&self) -> Kept {
        (self.base, self.undo.clone())
    }

    /// What the state's digest covers.
    pub(super) fn parts(&self) -> (LogIndex, &OrdMap<LogIndex, Arc<Undo>>) {
        let Self { now: _, undo, base, routes: _ } = self;
        (*base, undo)
    }

    fn put(&mut self, key: &RouteKey, intent: Option<Arc<RouteIntent>>) {
        match intent {
            Some(intent) => self.now.insert(key.clone(), intent),
            None => self.now.remove(key),
        };
    }

    /// Puts intents in force, and remembers those before.
    fn change(&mut self, index: LogIndex, changes: Undo) {
        let mut of_entry = self.undo.get(&index).map(|undo| (**undo).clone()).unwrap_or_default();
        let earlier = of_entry.len();
        for (key, intent) in changes {
            let before = self.now.get(&key).cloned();
            self.put(&key, intent);
            // Changed twice by one entry: what was there before the entry counts.
            if of_entry[..earlier].binary_search_by(|(other, _)| other.cmp(&key)).is_err() {
                of_entry.push((key, before));
            }
        }
        self.routes += of_entry.len() - earlier;
        of_entry.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.undo.insert(index, Arc::new(of_entry));
        self.trim();
    }

    /// Forgets the oldest changes above the limits.
    fn trim(&mut self) {
        while self.undo.len() > 1
            && (self.undo.len() > INTENT_CHANGES_MAX || self.routes > INTENT_CHANGE_ROUTES_MAX)
        {
            let Some((oldest, undo)) = self.undo.get_min().cloned() else { return };
            self.undo.remove(&oldest);
            self.routes -= undo.len();
            self.base = oldest;
        }
    }
}

impl RouteIntent {
    fn of(line: &Line, shares: Option<&[Share]>) -> Self {
        Self {
            tls: line.tls.clone(),
            options: line.options.clone(),
            services: names(line).cloned().collect(),
            shares: by_name(shares),
        }
    }

    /// Whether it is what [`RouteIntent::of`] would make, without making it.
    fn is_of(&self, line: &Line, shares: Option<&[Share]>) -> bool {
        let given = shares.unwrap_or_default();
        self.tls == line.tls
            && self.options == line.options
            && self.services.iter().eq(names(line))
            && self.shares.len() == given.len()
            && given.iter().all(|share| self.shares.contains(share))
    }
}

/// The names of a line's services, each once.
fn names(line: &Line) -> impl Iterator<Item = &Arc<str>> {
    let services = &line.services;
    let is_first = |(position, name): &(usize, &Arc<str>)| {
        services[..*position].iter().all(|earlier| earlier.name != **name)
    };
    let names = services.iter().map(|service| &service.name);
    names.enumerate().filter(is_first).map(|(_, name)| name)
}

/// Shares in an order of their own: another order is no other intent.
fn by_name(shares: Option<&[Share]>) -> Vec<Share> {
    let mut shares = shares.unwrap_or_default().to_vec();
    shares.sort_by(|a, b| a.service.cmp(&b.service));
    shares
}

impl State {
    /// The intents of a service cluster's routes as they were after the entry at `index`.
    pub fn intent_at(
        &self,
        service_cluster: &ServiceCluster,
        index: LogIndex,
    ) -> Result<Intents, NotKept> {
        if index > self.applied {
            return Err(NotKept::Future { given: index, applied: self.applied });
        }
        let mut intents = self.intents(service_cluster);
        let Some(cluster) = self.clusters.get(service_cluster) else { return Ok(intents) };
        let base = cluster.history.base;
        if index < base {
            return Err(NotKept::Older { given: index, base });
        }
        let newer = cluster.history.undo.iter().rev().take_while(|(changed, _)| **changed > index);
        for (_, undo) in newer {
            for (key, before) in undo.iter() {
                match before {
                    Some(before) => intents.routes.insert(key.clone(), Arc::clone(before)),
                    None => intents.routes.remove(key),
                };
            }
        }
        Ok(intents)
    }

    /// The intents in force.
    pub fn intents(&self, service_cluster: &ServiceCluster) -> Intents {
        let now = self.clusters.get(service_cluster).map(|cluster| cluster.history.now.clone());
        Intents { service_cluster: service_cluster.clone(), routes: now.unwrap_or_default() }
    }

    /// The index from which on [`State::intent_at`] can answer.
    pub fn intents_kept_from(&self, service_cluster: &ServiceCluster) -> LogIndex {
        self.clusters.get(service_cluster).map(|one| one.history.base).unwrap_or_default()
    }

    /// The last entry still kept that changed a route's intent.
    pub fn intent_changed_at(&self, route: &RouteKey) -> Option<LogIndex> {
        let undo = &self.clusters.get(&route.service_cluster)?.history.undo;
        let changed = |undo: &Undo| undo.binary_search_by(|(key, _)| key.cmp(route)).is_ok();
        undo.iter().rev().find(|(_, undo)| changed(undo)).map(|(index, _)| *index)
    }

    /// A route as its service cluster's snapshot has it.
    pub fn route(&self, key: &RouteKey) -> Option<Route> {
        Some(self.line(key)?.route(key))
    }

    /// The routes whose form in a snapshot differs from what it was in an earlier state.
    ///
    /// What both states share is not looked at: of one entry's change it costs little.
    pub fn routes_changed_since(&self, before: &Self) -> Vec<RouteKey> {
        let none = OrdMap::new();
        let mut changed = Vec::new();
        for (name, cluster) in &self.clusters {
            let old = before.clusters.get(name);
            if old.is_some_and(|old| old.revision == cluster.revision) {
                continue;
            }
            let old = old.map_or(&none, |old| &old.lines);
            changed.extend(old.diff(&cluster.lines).map(|item| match item {
                DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key.clone(),
                DiffItem::Update { new: (key, _), .. } => key.clone(),
            }));
        }
        changed
    }

    /// Notes the intents of routes whose lines were drawn or whose shares were ordered.
    pub(super) fn note_intents(&mut self, index: LogIndex, keys: &BTreeSet<RouteKey>) {
        let mut changes: BTreeMap<&ServiceCluster, Undo> = BTreeMap::new();
        for key in keys {
            if let Some(intent) = self.intent_unless_noted(key) {
                changes.entry(&key.service_cluster).or_default().push((key.clone(), intent));
            }
        }
        for (name, changes) in changes {
            if let Some(cluster) = self.clusters.get_mut(name) {
                cluster.history.change(index, changes);
            }
        }
    }

    /// Puts the intents in force together again, after lines were drawn anew.
    pub(super) fn index_intents(&mut self, keys: &BTreeSet<RouteKey>) {
        for key in keys {
            let Some(intent) = self.intent_unless_noted(key) else { continue };
            if let Some(cluster) = self.clusters.get_mut(&key.service_cluster) {
                cluster.history.put(key, intent);
            }
        }
    }

    /// A route's intent as it is drawn; `None` when that is the one noted.
    fn intent_unless_noted(&self, key: &RouteKey) -> Option<Option<Arc<RouteIntent>>> {
        let cluster = self.clusters.get(&key.service_cluster)?;
        let shares = self.canaries.get(key).and_then(|canary| canary.shares());
        match (cluster.history.now.get(key), cluster.lines.get(key)) {
            (None, None) => None,
            (Some(noted), Some(line)) if noted.is_of(line, shares) => None,
            (_, line) => Some(line.map(|line| Arc::new(RouteIntent::of(line, shares)))),
        }
    }
}

/// Whether decoded changes could have been written: within limits, sorted, not of later
/// entries, and of this service cluster.
pub(super) fn check(
    name: &ServiceCluster,
    (base, undo): &Kept,
    applied: LogIndex,
) -> Result<(), InvalidBytes> {
    let invalid = |reason| Err(InvalidBytes::whole("history of intents", reason));
    if undo.len() > INTENT_CHANGES_MAX {
        return invalid("more changes than are kept");
    }
    if undo.keys().any(|index| index <= base || *index > applied) || *base > applied {
        return invalid("a change out of its time");
    }
    for undo in undo.values() {
        if undo.is_empty() || !undo.is_sorted_by(|(a, _), (b, _)| a < b) {
            return invalid("routes of a change do not ascend");
        }
        if undo.iter().any(|(key, _)| key.service_cluster != *name) {
            return invalid("a route of another service cluster");
        }
    }
    Ok(())
}

crate::codec::shared! { Undo }
