"""Which product sells best? Twelve pages of orders become a pandas frame, and four lines of it are printed."""

import json

from programmatic import compare

QUESTION = "What are the three products with the highest revenue?"
PRODUCTS = ("anvil", "bellows", "chisel", "drill", "easel")
PAGES, ORDERS_OF_A_PAGE = 12, 50


def fetch_orders(page: int) -> str:
    """One page of orders as JSON: `orders`, and the number of the next page or null.

    Args:
        page: Counted from 1.
    """
    first = (page - 1) * ORDERS_OF_A_PAGE
    orders = [
        {"order": f"O{n:05}", "product": PRODUCTS[n * n % 5], "units": 1 + n % 4, "price": 10 + n % 5, "country": ("NO", "DE", "BR")[n % 3]}
        for n in range(first, first + ORDERS_OF_A_PAGE)
    ]
    return json.dumps({"orders": orders, "next_page": page + 1 if page < PAGES else None})


if __name__ == "__main__":
    with_code, directly = compare("paginated_fetch", QUESTION, [fetch_orders])
    assert with_code.calls == directly.calls == PAGES, (with_code.calls, directly.calls)
    assert with_code.printed[0] == "600 orders", with_code.printed
