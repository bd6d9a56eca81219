"""Units that numbers come with, and what they are exactly in the base unit of their dimension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """A unit: value in base units = value * factor + offset."""

    symbol: str
    dimension: str
    factor: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def in_base(self, value: Fraction) -> Fraction:
        """A value of this unit in the base unit of its dimension."""
        return value * self.factor + self.offset


PERCENT = Unit("%", "ratio", Fraction(1, 100))

# dimension, symbol, factor, names; a name of four letters or more also counts with an s. Currencies and units that are
# not the same everywhere (gallon, month) are dimensions of their own: they equal nothing but themselves.
_TABLE: tuple[tuple[str, str, str, str], ...] = (
    ("length", "m", "1", "m meter metre"),
    ("length", "mm", "1/1000", "mm millimeter millimetre"),
    ("length", "cm", "1/100", "cm centimeter centimetre"),
    ("length", "km", "1000", "km kilometer kilometre"),
    ("length", "in", "0.0254", "inch inches"),
    ("length", "ft", "0.3048", "ft foot feet"),
    ("length", "yd", "0.9144", "yd yard"),
    ("length", "mi", "1609.344", "mi mile"),
    ("mass", "kg", "1", "kg kgs kilogram kilo"),
    ("mass", "mg", "1/1000000", "mg milligram"),
    ("mass", "g", "1/1000", "g gram"),
    ("mass", "t", "1000", "tonne"),
    ("mass", "lb", "0.45359237", "lb lbs pound"),
    ("mass", "oz", "0.028349523125", "oz ounce"),
    ("time", "s", "1", "s sec secs second"),
    ("time", "ms", "1/1000", "ms millisecond"),
    ("time", "min", "60", "min mins minute"),
    ("time", "h", "3600", "h hr hrs hour"),
    ("time", "d", "86400", "day days"),
    ("time", "wk", "604800", "week"),
    ("months", "mo", "1", "month"),
    ("months", "yr", "12", "yr yrs year"),
    ("volume", "l", "1", "l liter litre"),
    ("volume", "ml", "1/1000", "ml milliliter millilitre"),
    ("volume", "cl", "1/100", "cl centiliter centilitre"),
    ("volume", "m3", "1000", "m3 m³"),
    ("volume", "cm3", "1/1000", "cm3 cm³"),
    ("gallons", "gal", "1", "gal gallon"),
    ("area", "m2", "1", "m2 m²"),
    ("area", "cm2", "1/10000", "cm2 cm²"),
    ("area", "km2", "1000000", "km2 km²"),
    ("area", "ft2", "0.09290304", "ft2 ft²"),
    ("area", "ha", "10000", "ha hectare"),
    ("area", "acre", "4046.8564224", "acre"),
    ("speed", "m/s", "1", "m/s"),
    ("speed", "km/h", "5/18", "km/h kph kmh"),
    ("speed", "mph", "0.44704", "mph mi/h"),
    ("frequency", "Hz", "1", "hz hertz"),
    ("frequency", "kHz", "1000", "khz kilohertz"),
    ("frequency", "MHz", "1000000", "mhz megahertz"),
    ("USD", "USD", "1", "$ usd dollar"),
    ("USD", "¢", "1/100", "¢ cent"),
    ("EUR", "EUR", "1", "€ eur euro"),
    ("GBP", "GBP", "1", "£ gbp"),
    ("JPY", "JPY", "1", "¥ jpy yen"),
    ("CNY", "CNY", "1", "cny yuan"),
    ("INR", "INR", "1", "₹ inr rupee"),
)
_TEMPERATURES = {
    "°c": Unit("°C", "temperature", Fraction(1), Fraction("273.15")),
    "°f": Unit("°F", "temperature", Fraction(5, 9), Fraction("459.67") * Fraction(5, 9)),
    "kelvin": Unit("K", "temperature"),
}
_SPELLED = {
    **{"celsius": "°c", "degrees celsius": "°c", "degree celsius": "°c", "centigrade": "°c"},
    **{"fahrenheit": "°f", "degrees fahrenheit": "°f", "degree fahrenheit": "°f"},
}
_PERCENT = ("%", "percent", "per cent", "pct")


def _all() -> Iterator[tuple[str, Unit]]:
    for dimension, symbol, factor, names in _TABLE:
        unit = Unit(symbol, dimension, Fraction(factor))
        for name in names.split():
            yield name, unit
            if len(name) > 3 and name.isalpha():
                yield name + "s", unit
    yield from _TEMPERATURES.items()
    yield from ((name, _TEMPERATURES[symbol]) for name, symbol in _SPELLED.items())
    yield from ((name, PERCENT) for name in _PERCENT)


UNITS: dict[str, Unit] = dict(_all())


def unit_after(words: Sequence[str]) -> Unit | None:
    """The unit that the words behind a number start with: "cm", "square feet", "km per hour", "°C".

    A quotient that the table does not know ("km/day") is a unit of its own.

    Args:
        words: in lower case, at least three where there are so many.
    """
    if not words:
        return None
    first = words[0]
    if first in ("square", "sq", "cubic") and len(words) > 1 and words[1] in UNITS:
        power = "3" if first == "cubic" else "2"
        symbol = UNITS[words[1]].symbol + power
        return UNITS.get(symbol, Unit(symbol, symbol))
    unit = UNITS.get(" ".join(words[:2])) or UNITS.get(first)
    if unit is not None and unit is not PERCENT and len(words) > 2 and words[1] in ("/", "per"):
        below = UNITS[words[2]].symbol if words[2] in UNITS else words[2]
        name = f"{unit.symbol}/{below}"
        return UNITS.get(name, Unit(name, name))
    return unit
