//! Who may what: pure.

use super::identity::Identity;
use super::problem::Problem;
use crate::config::endpoints::Who;

/// Whether the user may ask about this organization and this user (each where the endpoint
/// is about one).
///
/// # Errors
/// What is answered instead.
pub fn may(
    who: Who,
    identity: &Identity,
    organization: Option<&str>,
    user: Option<&str>,
) -> Result<(), Problem> {
    if who == Who::Anyone {
        return Ok(());
    }
    if !identity.is_active {
        return Err(Problem::user_inactive());
    }
    if identity.is_superuser {
        return Ok(());
    }
    let own = identity.organization_id.as_deref();
    let is_member = || own.is_some() && own == organization;
    let allowed = match who {
        Who::Anyone => true,
        Who::Myself => user.is_none_or(|user| user == identity.user_id),
        Who::Member => is_member(),
        Who::Admin => is_member() && identity.is_admin(),
        Who::Superuser => false,
    };
    if !allowed {
        return Err(Problem::forbidden(match who {
            Who::Member => "only members of this organization and superusers may",
            Who::Admin => "only administrators of this organization and superusers may",
            Who::Superuser => "only superusers may",
            Who::Myself | Who::Anyone => "only the user and superusers may",
        }));
    }
    if own.is_some() && identity.organization_is_active != Some(true) {
        return Err(Problem::organization_inactive());
    }
    Ok(())
}

/// The organization whose entries the user may manage: the one that is asked for, or a
/// superuser's `None`, which is all of them.
///
/// # Errors
/// What is answered instead.
pub fn scope(identity: &Identity, asked: Option<String>) -> Result<Option<String>, Problem> {
    if identity.is_active && identity.is_superuser {
        return Ok(asked);
    }
    let organization = asked.or_else(|| identity.organization_id.clone());
    if identity.is_active && organization.is_none() {
        return Err(Problem::no_organization());
    }
    may(Who::Admin, identity, organization.as_deref(), None)?;
    Ok(organization)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            user_id: "7".to_owned(),
            organization_id: Some("1".to_owned()),
            organization_is_active: Some(true),
            role_name: Some("org admin".to_owned()),
            is_active: true,
            is_superuser: false,
        }
    }

    fn status(who: Who, identity: &Identity) -> u16 {
        may(who, identity, Some("1"), Some("7")).err().map_or(200, |p| p.status.as_u16())
    }

    #[test]
    fn each_manages_what_is_its_own() {
        let admin = identity();
        let asked = |id: &str| Some(id.to_owned());
        assert_eq!(scope(&admin, None), Ok(asked("1")));
        assert_eq!(scope(&admin, asked("1")), Ok(asked("1")));
        assert_eq!(scope(&admin, asked("2")).unwrap_err().status.as_u16(), 403);
        let member = Identity { role_name: None, ..admin.clone() };
        assert_eq!(scope(&member, None).unwrap_err().status.as_u16(), 403);
        let nowhere = Identity { organization_id: None, ..admin.clone() };
        assert_eq!(scope(&nowhere, None).unwrap_err().status.as_u16(), 404);
        assert_eq!(scope(&nowhere, asked("1")).unwrap_err().status.as_u16(), 403);
        let superuser = Identity { is_superuser: true, ..nowhere };
        assert_eq!(scope(&superuser, None), Ok(None));
        assert_eq!(scope(&superuser, asked("2")), Ok(asked("2")));
        let inactive = Identity { is_active: false, ..superuser };
        assert_eq!(scope(&inactive, None).unwrap_err().status.as_u16(), 401);
    }

    #[test]
    fn each_role_reaches_what_is_its_own() {
        let all = [Who::Anyone, Who::Myself, Who::Member, Who::Admin, Who::Superuser];
        let is = identity();
        for (who, identity, expected) in [
            ("admin", is.clone(), [200, 200, 200, 200, 403]),
            ("member", Identity { role_name: None, ..is.clone() }, [200, 200, 200, 403, 403]),
            (
                "admin of another",
                Identity { organization_id: Some("2".to_owned()), ..is.clone() },
                [200, 200, 403, 403, 403],
            ),
            (
                "of none",
                Identity { organization_id: None, organization_is_active: None, ..is.clone() },
                [200, 200, 403, 403, 403],
            ),
            (
                "admin of an inactive one",
                Identity { organization_is_active: Some(false), ..is.clone() },
                [200, 403, 403, 403, 403],
            ),
            (
                "another user",
                Identity { user_id: "8".to_owned(), ..is.clone() },
                [200, 403, 200, 200, 403],
            ),
            (
                "superuser",
                Identity { is_superuser: true, organization_id: None, ..is.clone() },
                [200; 5],
            ),
            (
                "inactive superuser",
                Identity { is_superuser: true, is_active: false, ..is.clone() },
                [200, 401, 401, 401, 401],
            ),
        ] {
            assert_eq!(all.map(|kind| status(kind, &identity)), expected, "{who}");
        }
    }
}
