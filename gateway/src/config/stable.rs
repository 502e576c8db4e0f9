//! Keeps ids over a reload: whatever has the same name has the same number, what is new gets a new one, and what was
//! removed stays, disabled, for the requests that still run. Policy counts by numbers, so no one inherits what another
//! has used.

use super::checked::{Config, Model, Project, User, position};
use policy::{ModelId, PlanId, ProjectId, SubjectRules, UserId};

/// The new configuration, with the numbers of the old one.
pub(crate) fn keep_ids(new: Config, old: &Config) -> Config {
    let (plans, plan_ids) = arrange(new.plans, &old.plans, |plan| &plan.id);
    let (mut projects, project_ids) = arrange(new.projects, &old.projects, |project| &project.id);
    let (mut users, user_ids) = arrange(new.users, &old.users, |user| &user.id);
    let (mut models, model_ids) = arrange(new.models, &old.models, |model| &model.name);
    for project in projects.iter_mut().filter_map(Entry::current) {
        project.plan = PlanId(plan_ids[project.plan.0 as usize]);
    }
    for user in users.iter_mut().filter_map(Entry::current) {
        user.project = ProjectId(project_ids[user.project.0 as usize]);
    }
    for model in models.iter_mut().filter_map(Entry::current) {
        model.smaller = model.smaller.map(|smaller| ModelId(model_ids[smaller.0 as usize]));
        for fallback in &mut model.fallbacks {
            *fallback = ModelId(model_ids[fallback.0 as usize]);
        }
    }
    projects
        .iter_mut()
        .filter_map(Entry::removed)
        .for_each(Project::disable);
    users.iter_mut().filter_map(Entry::removed).for_each(User::disable);
    models.iter_mut().filter_map(Entry::removed).for_each(Model::disable);
    let by_name = new.models_by_name.into_iter();
    let by_id = new.users_by_id.into_iter();
    let mut gateway = new.gateway;
    gateway.identity = gateway.identity.with_default(|user| UserId(user_ids[user.0 as usize]));
    Config {
        plans: plans.into_iter().map(Entry::into_inner).collect(),
        projects: projects.into_iter().map(Entry::into_inner).collect(),
        users: users.into_iter().map(Entry::into_inner).collect(),
        models: models.into_iter().map(Entry::into_inner).collect(),
        models_by_name: by_name
            .map(|(name, id)| (name, ModelId(model_ids[id.0 as usize])))
            .collect(),
        users_by_id: by_id
            .map(|(name, id)| (name, UserId(user_ids[id.0 as usize])))
            .collect(),
        gateway,
        ..new
    }
}

/// Something configured, or something that was.
enum Entry<T> {
    New(T),
    Removed(T),
}

impl<T> Entry<T> {
    fn current(&mut self) -> Option<&mut T> {
        match self {
            Entry::New(entry) => Some(entry),
            Entry::Removed(_) => None,
        }
    }

    fn removed(&mut self) -> Option<&mut T> {
        match self {
            Entry::New(_) => None,
            Entry::Removed(entry) => Some(entry),
        }
    }

    fn into_inner(self) -> T {
        match self {
            Entry::New(entry) | Entry::Removed(entry) => entry,
        }
    }
}

/// Puts the new list into the old one's order; and where each place of the new list went.
fn arrange<T: Clone>(new: Vec<T>, old: &[T], name: impl Fn(&T) -> &String) -> (Vec<Entry<T>>, Vec<u32>) {
    let mut places = Vec::with_capacity(new.len());
    let mut arranged: Vec<Entry<T>> = old.iter().cloned().map(Entry::Removed).collect();
    for entry in new {
        let known = old.iter().position(|known| name(known) == name(&entry));
        let at = known.unwrap_or(arranged.len());
        match arranged.get_mut(at) {
            Some(place) => *place = Entry::New(entry),
            None => arranged.push(Entry::New(entry)),
        }
        places.push(position(Some(at)).unwrap_or(u32::MAX));
    }
    (arranged, places)
}

impl Project {
    fn disable(&mut self) {
        (self.enabled, self.is_removed) = (false, true);
        self.limits = SubjectRules::default();
    }
}

impl User {
    fn disable(&mut self) {
        (self.enabled, self.is_removed) = (false, true);
        self.limits = SubjectRules::default();
    }
}

impl Model {
    fn disable(&mut self) {
        (self.enabled, self.is_removed) = (false, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_same_name_keeps_its_number_and_what_was_removed_stays() {
        let old = ["a", "b", "c"].map(str::to_owned).to_vec();
        let new = ["d", "c", "a"].map(str::to_owned).to_vec();
        let (arranged, places) = arrange(new, &old, |name| name);
        let names: Vec<(bool, String)> = arranged
            .into_iter()
            .map(|mut entry| (entry.current().is_some(), entry.into_inner()))
            .collect();
        let expected = [(true, "a"), (false, "b"), (true, "c"), (true, "d")];
        assert_eq!(names, expected.map(|(is_new, name)| (is_new, name.to_owned())));
        assert_eq!(places, [3, 2, 0]);
    }
}
