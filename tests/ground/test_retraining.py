"""A retraining carried over to a device, and what a published study printed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.costs.count import cost
from mobilenets.costs.device import DEVICES, STUDY, device
from mobilenets.costs.forecast import forecast
from mobilenets.costs.retraining import WIDE, Parts, retraining
from mobilenets.costs.study import NAMED, PRINTED, WIDTHS
from mobilenets.spec import zoo

PARTS = Parts(pictures=9000, decode_s=20.0, fit_s=4.0, rest_s=6.0, mips=3200.0, gmacs=80.0)
CARRIED = sorted(one.name for one in DEVICES.values() if one.kind in ("a53", "a72", "skylake"))
BODY = cost(zoo.body("v1", 0.25, 128))


def test_what_is_known_of_the_studys_table_is_this_and_no_more() -> None:
    known = [(one.device, one.width, one.watts, one.seconds, one.accuracy) for one in PRINTED]
    assert known == [
        ("m8s-pro", None, 2.1, (3123, 3123), None),
        ("", None, None, (387, 5611), (0.883, 0.933)),
    ]
    assert PRINTED[0].joules == pytest.approx(6558.3)  # 2.1 W × 3123 s
    assert PRINTED[1].joules is None
    assert all(STUDY in one.source for one in PRINTED)
    assert set(NAMED) <= set(DEVICES)
    assert WIDTHS == (0.25, 0.5, 0.75, 1.0)


@given(
    name=st.sampled_from(CARRIED),
    times=st.integers(2, 9),
    fit_s=st.floats(0, 100),
    rest_s=st.floats(0, 100),
)
def test_seconds_grow_with_pictures_and_lie_in_their_interval(
    name: str, times: int, fit_s: float, rest_s: float
) -> None:
    one = retraining(BODY, device(name), replace(PARTS, fit_s=fit_s, rest_s=rest_s))
    assert one.low < one.seconds < one.high
    assert one.seconds == pytest.approx(one.body_s + one.decode_s + one.fit_s + one.rest_s)
    more = replace(PARTS, pictures=times * PARTS.pictures, decode_s=times * PARTS.decode_s, fit_s=fit_s)
    many = retraining(BODY, device(name), replace(more, rest_s=rest_s))
    assert many.body_s == pytest.approx(times * one.body_s)
    assert many.decode_s == pytest.approx(times * one.decode_s)
    assert many.seconds > one.seconds
    assert (many.fit_s, many.rest_s) == pytest.approx((one.fit_s, one.rest_s))


def test_the_body_is_what_a_forecast_of_a_picture_says_and_the_rest_is_wide() -> None:
    where = device("m8s-pro")
    picture = forecast(BODY, where, "float32", where.cores)
    bare = retraining(BODY, where, replace(PARTS, decode_s=0, fit_s=0, rest_s=0))
    assert bare.seconds == pytest.approx(9.0 * picture.ms)
    assert (bare.low, bare.high) == pytest.approx((9.0 * picture.low, 9.0 * picture.high))
    only = retraining(BODY, where, replace(PARTS, pictures=0))
    assert only.low == pytest.approx(only.seconds / WIDE)
    assert only.high == pytest.approx(only.seconds * WIDE)


def test_joules_are_watts_times_seconds_where_watts_are_known() -> None:
    found = retraining(BODY, device("m8s-pro"), PARTS)
    assert found.joules(found.seconds) == pytest.approx(2.1 * found.seconds)
    assert any("2.1 W" in note and STUDY in note for note in found.notes)
    assert retraining(BODY, device("macbook-i5"), PARTS).joules(1.0) is None


def test_a_faster_clock_is_faster_and_a_device_like_this_one_takes_as_long() -> None:
    where = device("raspberry-pi-3")
    assert retraining(BODY, replace(where, ghz=2 * where.ghz), PARTS).seconds < (
        retraining(BODY, where, PARTS).seconds
    )
    alike = replace(PARTS, mips=0.70e3 * where.ghz)
    assert retraining(BODY, where, alike).rest_s == pytest.approx(PARTS.rest_s)
    assert retraining(BODY, where, alike).decode_s == pytest.approx(PARTS.decode_s / where.cores)


def test_a_device_of_which_too_little_is_known_is_refused() -> None:
    for name, words in (("stm32l4r5", "no figures were found"), ("stm32h747", "only in int8")):
        with pytest.raises(ValueError, match=f"^{name}: .*{words}"):
            retraining(BODY, device(name), PARTS)
