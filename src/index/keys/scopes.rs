//! What a caller may do: a small set of named scopes.

use std::fmt;

/// One thing that a caller may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Search, and read sources, pages and chunks.
    Search,
    /// Change and delete sources.
    SourcesWrite,
    /// Start and cancel jobs.
    JobsWrite,
    /// Change the configuration.
    ConfigWrite,
    /// Everything, also keys and `/debug` of the private door.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Search, Self::SourcesWrite, Self::JobsWrite, Self::ConfigWrite, Self::Admin];

    /// As people and programs write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::SourcesWrite => "sources:write",
            Self::JobsWrite => "jobs:write",
            Self::ConfigWrite => "config:write",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| format!("{text:?} is no scope; there are {}", names()))
    }
}

/// Any number of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// May do nothing.
    pub const NONE: Self = Self(0);
    /// May do everything.
    pub const ALL: Self = Self(Scope::Admin.bit());

    /// Whether they allow what needs `scope`; `admin` allows everything.
    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names, in the order of [`Scope::ALL`].
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| self.0 & scope.bit() != 0).map(Scope::name).collect()
    }

    /// Reads names.
    ///
    /// # Errors
    /// Says which is none, and which there are.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        names.into_iter().map(str::parse::<Scope>).collect()
    }

    /// The names that are known here; others, of a newer release, allow nothing.
    pub(super) fn known<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(|name| name.parse::<Scope>().ok()).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_itself_and_admin_allows_all() {
        for scope in Scope::ALL {
            let one: Scopes = [scope].into_iter().collect();
            for asked in Scope::ALL {
                assert_eq!(one.allow(asked), scope == Scope::Admin || scope == asked, "{scope:?} {asked:?}");
            }
            assert_eq!(Scopes::parse(one.names()), Ok(one));
            assert!(!Scopes::NONE.allow(scope) && Scopes::ALL.allow(scope));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_where_it_is_given_and_allows_nothing_where_it_is_read() {
        assert!(Scopes::parse(["search", "sauces:write"]).is_err_and(|error| error.contains("sources:write")));
        assert_eq!(Scopes::known(["search", "of-tomorrow"]), [Scope::Search].into_iter().collect());
    }
}
