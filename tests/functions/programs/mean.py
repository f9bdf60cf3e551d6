"""An exec function in Python, without any library of EdgeLoop's: the mean of the last three values of each topic."""

import json
import sys

last = {}
for line in sys.stdin:
    call = json.loads(line)
    values = last.setdefault(call["topic"], [])
    try:
        values.append(call["payload"]["c"])
    except (KeyError, TypeError):
        answer = {"id": call["id"], "error": "NoTemperature", "message": f"on {call['topic']}"}
    else:
        del values[:-3]
        mean = round(sum(values) / len(values), 3)
        print(json.dumps({"publish": "mean/" + call["topic"], "payload": {"c": mean}}))
        answer = {"id": call["id"], "result": mean}
    print(json.dumps(answer), flush=True)
