"""Who of twenty employees went over the travel budget? Twenty lists of expenses, of which the model needs four lines."""

import json

from programmatic import compare

QUESTION = "Who of the engineering team was over the travel budget in the third quarter?"
LEVELS = ("junior", "senior", "staff")
BUDGETS = {"junior": 5_000, "senior": 8_000, "staff": 12_000}


def get_team_members(department: str) -> str:
    """Lists a department's employees as JSON: id, name and level of each.

    Args:
        department: Its name.
    """
    return json.dumps([{"id": f"E{n:02}", "name": f"Employee {n:02}", "level": LEVELS[n % 3]} for n in range(1, 21)])


def get_expenses(employee_id: str, quarter: str) -> str:
    """Lists an employee's expenses as JSON: date, category, amount, receipt and status of each.

    Args:
        employee_id: The employee.
        quarter: For example Q3.
    """
    number = int(employee_id[1:])
    return json.dumps([
        {
            "id": f"{employee_id}-{line:03}", "date": f"2026-0{7 + line % 3}-{1 + line % 28:02}",
            "category": ("travel", "meals", "software")[line % 3], "amount": 40 * number + 17 * line,
            "receipt": f"https://receipts.example/{employee_id}/{line:03}.pdf", "status": "rejected" if line % 7 == 0 else "approved",
        }
        for line in range(1, 41)
    ])


def get_budget(level: str) -> str:
    """The travel budget of a level for one quarter, as JSON.

    Args:
        level: junior, senior or staff.
    """
    return json.dumps({"level": level, "travel": BUDGETS[level]})


if __name__ == "__main__":
    with_code, directly = compare("budget_compliance", QUESTION, [get_team_members, get_expenses, get_budget])
    assert with_code.calls == directly.calls == 24, (with_code.calls, directly.calls)
