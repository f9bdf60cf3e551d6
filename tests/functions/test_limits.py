"""What is said to hold, from what the launcher reports."""

from edge.config_functions import LIMITS
from edge.functions.sandbox.limits import Containment, containment
from edge.functions.sandbox.settings import Sandbox, number_of

ALONE = Sandbox(name="mean", folder="/work")
ALL = ["group:/a", "namespace:files", "namespace:network", "namespace:processes", "no_new_privileges", "user"]


def said(held: list[str], sandbox: Sandbox = ALONE, groups: str = "cgroup v2", **missed: str) -> Containment:
    return containment(sandbox, [*held, "limits"], missed, groups, ["memory", "processes", "cpu"])


def test_with_all_mechanisms_nothing_is_open() -> None:
    found = said([*ALL, "seccomp", "landlock:4", "quota"])
    assert list(found.limits) == list(LIMITS)
    assert found.open() == []
    assert not any(held.but for held in found.limits.values())


def test_a_group_that_could_not_be_joined_holds_nothing() -> None:
    found = containment(ALONE, ["user"], {"group:/a": "Permission denied"}, "cgroup v1", ["memory", "processes"])
    assert found.limits["memory"].by.startswith("rlimit")
    assert found.limits["processes"].by == "rlimit"
    assert found.missed == {"group:/a": "Permission denied"}


def test_without_any_mechanism_it_is_said_what_is_open() -> None:
    found = containment(Sandbox(name="mean", folder="/work", cpu_percent_max=50), [], {}, "", [])
    assert found.open() == ["cpu", "network", "files", "user", "privileges", "end"]
    assert all(found.limits[limit].but for limit in found.open())


def test_what_is_demanded_must_hold_with_nothing_left_open() -> None:
    whole = said([*ALL, "seccomp", "landlock:4", "quota"])
    assert whole.unmet(LIMITS) == ""
    found = containment(Sandbox(name="mean", folder="/work", cpu_percent_max=50), [], {}, "", [])
    assert found.unmet(("file_size", "files_open", "core_dumps")) == ""
    for limit in set(LIMITS) - {"file_size", "files_open", "core_dumps"}:
        told = found.unmet((limit,))
        assert told.startswith(f"{limit} (")
        assert told.endswith(".")
        assert "remove it" not in told, "there is something to do"


def test_an_account_shared_with_others_is_not_ended_as_a_whole() -> None:
    assert containment(ALONE, ["user"], {}, "", []).limits["end"].by == "all of its user are killed"
    for shared in (Sandbox(name="a", folder="/a", user="pi"), Sandbox(name="a", folder="/a", workers=2)):
        assert containment(shared, ["user"], {}, "", []).limits["end"].by == ""


def test_landlock_alone_holds_tcp_and_says_what_it_does_not() -> None:
    held = containment(ALONE, ["landlock:4"], {}, "", []).limits["network"]
    assert (held.by, held.but) == ("Landlock", "TCP alone is held")
    assert containment(ALONE, ["landlock:1"], {}, "", []).limits["network"].by == ""


def test_a_functions_number_is_its_own_and_stays() -> None:
    assert number_of("mean") == 1_900_000_000 + 5390254
    assert len({number_of(f"function{n}") for n in range(200)}) == 200
    assert all(1_900_000_000 <= number_of(f"f{n}") < 2**31 for n in range(200))
