"""ISO 4217 currencies, and the limits of each payment provider.

Money inside the platform is in ISO 4217 minor units. A provider may count in other units: Stripe counts Malagasy
ariary in whole ariary, although ISO defines hundredths, and Icelandic kronur in hundredths, although ISO defines none.
`ProviderLimits` has the limits that a provider documents, converts amounts in both directions, and validates them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from events.catalog import Money


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


CURRENCIES = _codes("""
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD
    CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP
    GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD
    KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN
    NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP
    SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES
    VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
""")
"""The currencies of payments, without ISO's codes for funds, precious metals and tests."""

NO_DECIMALS = _codes("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF")
THREE_DECIMALS = _codes("BHD IQD JOD KWD LYD OMR TND")
_FOUR_DECIMALS = _codes("CLF UYW")


def exponent(currency: str) -> int:
    """Return the number of decimals of a currency in ISO 4217, or 2 for an unknown code."""
    if currency in NO_DECIMALS:
        return 0
    if currency in THREE_DECIMALS:
        return 3
    return 4 if currency in _FOUR_DECIMALS else 2


@dataclass(frozen=True)
class ChargeLimits:
    """The amounts that a provider accepts in one currency, in the provider's own units.

    `exponent` is the number of decimals of the provider's unit. Every amount must be a multiple of `step`. `minimum`
    and `maximum` bound one charge; refunds have no minimum.
    """

    exponent: int
    step: int = 1
    minimum: int = 1
    maximum: int = 10**15


@dataclass(frozen=True)
class ProviderLimits:
    """The limits of one payment provider, by currency. A currency that is not in `limits` is not accepted."""

    provider: str
    limits: Mapping[str, ChargeLimits]

    def price_problem(self, price: Money) -> tuple[str, str] | None:
        """Return why a unit price cannot be charged, as (field of the money, message), or None if it can.

        A unit price has no minimum, because several cheap items add up to a total that can be charged.
        """
        return self._problem(price, at_least=0)

    def total_problem(self, total: Money) -> tuple[str, str] | None:
        """Return why a total cannot be charged, or None if it can. A total of 0 is valid; it is not charged."""
        if total.amount == 0:
            return None
        return self._problem(total, at_least=None)

    def refund_problem(self, amount: Money) -> tuple[str, str] | None:
        """Return why an amount cannot be refunded, or None if it can."""
        return self._problem(amount, at_least=1)

    def to_provider(self, money: Money) -> int:
        """Convert an amount to the provider's units. Raises ValueError if the provider does not accept the amount."""
        if (problem := self._problem(money, at_least=0)) is not None:
            raise ValueError(f"{money.amount} {money.currency}: {problem[1]}")
        up, down = _ratio(self.limits[money.currency], money.currency)
        return money.amount * up // down

    def from_provider(self, amount: int, currency: str) -> Money:
        """Convert an amount from the provider's units to ISO minor units, rounded to the nearest minor unit."""
        limits = self.limits.get(currency)
        up, down = _ratio(limits, currency) if limits else (1, 1)
        return Money((2 * amount * down + up) // (2 * up), currency)

    def _problem(self, money: Money, at_least: int | None) -> tuple[str, str] | None:
        limits = self.limits.get(money.currency)
        if limits is None:
            return "currency", f"is not a currency that {self.provider} charges"
        up, down = _ratio(limits, money.currency)
        amount, rest = divmod(money.amount * up, down)
        least, most = limits.minimum if at_least is None else at_least, limits.maximum
        if rest or amount % limits.step:
            step = max(1, limits.step * down // up)
            return ("amount", f"must be a multiple of {step} for {self.provider} to charge it in {money.currency}")
        if amount < least:
            return (
                "amount",
                f"must be at least {-(-least * down // up)}, what {self.provider} charges in {money.currency}",
            )
        if amount > most:
            return ("amount", f"must be at most {most * down // up}, what {self.provider} charges in {money.currency}")
        return None


def _ratio(limits: ChargeLimits, currency: str) -> tuple[int, int]:
    """Return the factor and the divisor that convert ISO minor units to the provider's units."""
    power = limits.exponent - exponent(currency)
    return (int(10**power), 1) if power >= 0 else (1, int(10**-power))


def _stripe() -> dict[str, ChargeLimits]:
    """Return Stripe's table.

    Source: docs.stripe.com/currencies, "Supported presentment currencies", "Zero-decimal currencies",
    "Three-decimal currencies", "Special cases", "Minimum and maximum charge amounts", read 2026-11-30. The special
    cases of HUF and TWD concern payouts only. Stripe's minimum depends on the currency in which the account settles.
    This table has the minimum for an account that settles in the charge's currency; if Stripe has to convert the
    amount, the real minimum may be higher.
    """
    supported = _codes("""
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF
        CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF
        IDR ILS INR ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT
        MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF
        SAR SBD SCR SEK SGD SHP SLE SOS SRD SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VND VUV WST
        XAF XCD XCG XOF XPF YER ZAR ZMW
    """)
    zero_decimal = _codes("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF")
    three_decimal = _codes("BHD JOD KWD OMR TND")  # the last digit must be 0
    whole_in_hundredths = _codes("ISK UGX")  # counted in hundredths for Stripe's backward compatibility
    minimum = {
        **dict.fromkeys(_codes("ARS AUD BRL CAD CHF COP EUR IDR ILS INR JPY KRW NZD PHP RUB SGD USD ZAR"), 50),
        **dict.fromkeys(_codes("AED MYR PLN RON"), 200),
        **dict.fromkeys(_codes("NOK SEK"), 300),
        **dict.fromkeys(_codes("MXN THB"), 1000),
        "BGN": 100,
        "CZK": 1500,
        "DKK": 250,
        "GBP": 30,
        "HKD": 400,
        "HUF": 17500,
    }
    digits = {"IDR": 12, "COP": 10, "INR": 9}

    def limits(currency: str) -> ChargeLimits:
        step = 10 if currency in three_decimal else 100 if currency in whole_in_hundredths else 1
        decimals = 0 if currency in zero_decimal else 3 if currency in three_decimal else 2
        most = 10 ** digits.get(currency, 8) - 1
        return ChargeLimits(decimals, step, max(step, minimum.get(currency, 1)), most - most % step)

    return {currency: limits(currency) for currency in supported}


SIMULATED = ProviderLimits(
    "The simulated provider", {currency: ChargeLimits(exponent(currency)) for currency in CURRENCIES}
)
"""No limits except those of ISO 4217."""
PROVIDERS: Mapping[str, ProviderLimits] = {"stripe": ProviderLimits("Stripe", _stripe()), "simulated": SIMULATED}
"""The limits of each provider, by the value of PAYMENT_PROVIDER."""
