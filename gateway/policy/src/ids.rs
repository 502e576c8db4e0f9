//! Interned ids: small numbers in the place of names, so that policy hashes no strings. An id means the same for as
//! long as the [`Policy`](crate::Policy) lives: a reload adds ids, and never gives one to somebody else.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// An id that is the index of what it names.
pub trait Id: Copy {
    /// The position in an [`IdMap`] or a list.
    fn index(self) -> usize;

    /// The id at a position.
    fn at(index: usize) -> Self;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in a list that is ordered by this id.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl Id for $name {
            fn index(self) -> usize {
                self.0 as usize
            }

            fn at(index: usize) -> Self {
                Self(u32::try_from(index).unwrap_or(u32::MAX))
            }
        }
    )*};
}

ids! {
    /// A project's id.
    ProjectId;
    /// A user's id.
    UserId;
    /// An API key's id.
    KeyId;
    /// A model's id.
    ModelId;
    /// A plan's id.
    PlanId;
}

/// The holder of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A plan, whose limits apply to each of its projects alone.
    Plan(PlanId, ProjectId),
    /// A project.
    Project(ProjectId),
    /// A user.
    User(UserId),
    /// An API key.
    Key(KeyId),
    /// A model, whose limits apply to all who use it together.
    Model(ModelId),
}

impl Subject {
    /// The kind of subject, as in logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Subject::Plan(..) => "plan",
            Subject::Project(_) => "project",
            Subject::User(_) => "user",
            Subject::Key(_) => "key",
            Subject::Model(_) => "model",
        }
    }
}

impl fmt::Display for Subject {
    /// As in messages to the caller, who knows which one is meant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Plan(..) => f.write_str("this project's plan"),
            _ => write!(f, "this {}", self.kind()),
        }
    }
}

/// A map from ids to values, dense: ids are given out one after the other.
#[derive(Debug, Clone)]
pub struct IdMap<I, T> {
    values: Vec<T>,
    id: PhantomData<I>,
}

impl<I, T> Default for IdMap<I, T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            id: PhantomData,
        }
    }
}

impl<I: Id, T> IdMap<I, T> {
    /// The number of ids that have a value, from the first.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns whether no id has a value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of an id, if it has one.
    pub fn get(&self, id: I) -> Option<&T> {
        self.values.get(id.index())
    }

    /// The value of an id, to be changed, if it has one.
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.values.get_mut(id.index())
    }

    /// The value of an id; it and those before it get values from `make` where they have none.
    pub fn entry(&mut self, id: I, make: impl FnMut(I) -> T) -> &mut T {
        if id.index() >= self.values.len() {
            self.grow(id, make);
        }
        &mut self.values[id.index()]
    }

    #[cold]
    fn grow(&mut self, id: I, make: impl FnMut(I) -> T) {
        self.values
            .extend((self.values.len()..=id.index()).map(I::at).map(make));
    }

    /// All ids that have a value.
    pub fn ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.values.len()).map(I::at)
    }

    /// All ids with their values, in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.values.iter().enumerate().map(|(at, value)| (I::at(at), value))
    }

    /// All ids with their values, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (I, &mut T)> {
        self.values.iter_mut().enumerate().map(|(at, value)| (I::at(at), value))
    }
}

impl<I: Id, T> Index<I> for IdMap<I, T> {
    type Output = T;

    /// The value of an id that is known to have one.
    fn index(&self, id: I) -> &T {
        &self.values[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for IdMap<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.values[id.index()]
    }
}

/// A map from subjects to values.
#[derive(Debug)]
pub(crate) struct BySubject<T> {
    plans: IdMap<ProjectId, T>,
    projects: IdMap<ProjectId, T>,
    users: IdMap<UserId, T>,
    keys: IdMap<KeyId, T>,
    models: IdMap<ModelId, T>,
}

impl<T> Default for BySubject<T> {
    fn default() -> Self {
        Self {
            plans: IdMap::default(),
            projects: IdMap::default(),
            users: IdMap::default(),
            keys: IdMap::default(),
            models: IdMap::default(),
        }
    }
}

impl<T: Default> BySubject<T> {
    /// The value of a subject, if it has one. A project keeps what it has used of a plan when its plan changes.
    pub(crate) fn get(&self, subject: Subject) -> Option<&T> {
        match subject {
            Subject::Plan(_, project) => self.plans.get(project),
            Subject::Project(project) => self.projects.get(project),
            Subject::User(user) => self.users.get(user),
            Subject::Key(key) => self.keys.get(key),
            Subject::Model(model) => self.models.get(model),
        }
    }

    /// The value of a subject; the default one where it has none yet.
    pub(crate) fn entry(&mut self, subject: Subject) -> &mut T {
        match subject {
            Subject::Plan(_, project) => self.plans.entry(project, |_| T::default()),
            Subject::Project(project) => self.projects.entry(project, |_| T::default()),
            Subject::User(user) => self.users.entry(user, |_| T::default()),
            Subject::Key(key) => self.keys.entry(key, |_| T::default()),
            Subject::Model(model) => self.models.entry(model, |_| T::default()),
        }
    }

    /// All subjects that have a value; every plan is `PlanId(0)`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Subject, &T)> {
        let of_plan = |(project, value)| (Subject::Plan(PlanId(0), project), value);
        let plans = self.plans.iter().map(of_plan);
        let projects = self.projects.iter().map(|(id, value)| (Subject::Project(id), value));
        let users = self.users.iter().map(|(id, value)| (Subject::User(id), value));
        let keys = self.keys.iter().map(|(id, value)| (Subject::Key(id), value));
        let models = self.models.iter().map(|(id, value)| (Subject::Model(id), value));
        plans.chain(projects).chain(users).chain(keys).chain(models)
    }
}
