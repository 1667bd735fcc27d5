"""Catalogue: the forty CDs of the shop, every artist and title invented.

The real orders that the shop replays say how many CDs were bought, not which.
"""

from typing import Any

from django.apps import apps as installed_apps
from django.apps.registry import Apps
from django.db import router, transaction

# artist, title, price
RECORDS = [
    ("The Lamplight Union", "Harbour Hours", "11.77"),
    ("Odalie Venn", "Paper Rivers", "14.96"),
    ("Northbound Choir", "Snow on the Antennas", "13.97"),
    ("Kestrel & Pike", "Two Miles of Fence", "12.99"),
    ("Marrow Street Quintet", "Blue Ledger", "15.49"),
    ("Ines Calloway", "Letters to the Orchard", "11.77"),
    ("The Velvet Barometers", "Falling, Fair", "13.99"),
    ("Tobias Renn", "Cello in an Empty Mill", "16.98"),
    ("Glasshouse Parade", "Everything Grows at Night", "12.49"),
    ("Sunday Cartographers", "Maps Without Roads", "14.96"),
    ("Halden Brass", "Copper Weather", "9.77"),
    ("Mirelle Asante-Roe", "Salt and Saffron", "15.96"),
    ("The Quiet Engines", "Idle Speed", "11.97"),
    ("Pella Strand", "The Cartwheel Year", "13.97"),
    ("Ferris & the Low Tide", "Moonlit Arcade", "12.99"),
    ("Oriel Novak", "Études for a Broken Lift", "17.96"),
    ("Bright Ampersand", "And Then Some", "10.77"),
    ("The Tin Cathedral", "Rust Hymnal", "14.49"),
    ("Juno Farrow", "Radio Silence, Vol. 3", "11.77"),
    ("Cobalt Herons", "Wading Birds", "13.49"),
    ("Ashgrove Players", "A Shorter History of Rain", "12.97"),
    ("Lucan Dray", "Porch Light On", "9.99"),
    ("Seventh Platform", "Departures", "14.96"),
    ("The Almanac Sisters", "Frost Date", "13.97"),
    ("Wendel Okoro", "Low Sun Suite", "15.49"),
    ("Dial Tone Revival", "Party Line", "10.97"),
    ("Marisol Lind", "Nine Windows", "12.99"),
    ("Gravel & Lace", "Second-Hand Thunder", "11.97"),
    ("The Postal Orchestra", "Return to Sender Symphony", "18.96"),
    ("Elin Tarrow", "Songs from the Ferry", "13.99"),
    ("Static Meadow", "Long Grass", "12.49"),
    ("Bellweather Four", "Counterpoint Diner", "14.49"),
    ("Hugo Valdane", "Midnight Tram", "11.77"),
    ("The Paper Lanterns of Ghent", "Slow Festival", "15.96"),
    ("Nadia Quill", "Ink Weather", "13.97"),
    ("Ridge Runner Radio", "Signal Hill", "12.99"),
    ("The Borrowed Tuxedos", "Encore Anyway", "10.77"),
    ("Cassia Thorne", "Winter Garden Sessions", "16.49"),
    ("Umber Sky", "Kites Over Concrete", "13.49"),
]
# One pressing that is never delivered again: the way to sell out.
LIMITED = ("Opaline Drift", "Numbered Pressing, 25 Copies", "29.99")
LIMITED_COPIES = 25


def stock_after_migrate(
    *, using: str, apps: Apps = installed_apps, app_config: Any = None, **kwargs: object
) -> None:
    """Fill the shelves of an empty shop; a shop with products belongs to its admin."""
    try:
        product_model = apps.get_model("orders", "Product")
        movement_model = apps.get_model("orders", "StockMovement")
    except LookupError:  # migrated back to nothing
        return
    if not router.allow_migrate_model(using, product_model):
        return
    with transaction.atomic(using=using):
        if product_model._default_manager.using(using).exists():
            return
        products = [
            product_model(sku=f"CD-{number:04}", artist=artist, title=title, price=price)
            for number, (artist, title, price) in enumerate(RECORDS, start=1)
        ]
        for product in products:
            product.stock = product.restock_size
        artist, title, price = LIMITED
        products.append(
            product_model(
                sku="CD-LTD1",
                artist=artist,
                title=title,
                price=price,
                stock=LIMITED_COPIES,
                restock_level=0,
                restock_size=0,
            )
        )
        product_model._default_manager.using(using).bulk_create(products)
        movement_model._default_manager.using(using).bulk_create(
            movement_model(product=product, quantity=product.stock) for product in products
        )
