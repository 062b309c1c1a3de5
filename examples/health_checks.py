"""Which region can take the traffic? The code asks one after the other, and stops at the first that is well."""

import json

from programmatic import compare

QUESTION = "Find a healthy region for the failover; the order is one of preference."
REGIONS = ["eu-north", "eu-west", "us-east", "us-west", "ap-south", "ap-east", "sa-east", "af-south"]


def check_region(region: str) -> str:
    """Checks a region's hosts; JSON with a status for all of it and one for each host.

    Args:
        region: Its name.
    """
    well = REGIONS.index(region) >= 3
    hosts = [{"host": f"{region}-{n:03}", "status": "up" if well or n % 5 else "down", "load": 0.1 * (n % 9)} for n in range(60)]
    return json.dumps({"region": region, "status": "healthy" if well else "degraded", "hosts": hosts})


if __name__ == "__main__":
    with_code, directly = compare("health_checks", QUESTION, [check_region])
    assert (with_code.calls, directly.calls) == (4, 8), (with_code.calls, directly.calls)
    assert with_code.printed[-1] == "us-west is healthy; 4 of 8 regions were asked", with_code.printed
