"""What template.yaml promises, for every combination of its switches: defaults, least privilege, nothing public unasked."""

import itertools
import pathlib

from samtranslator.yaml_helper import yaml_parse

TEMPLATE = yaml_parse((pathlib.Path(__file__).parents[1] / "template.yaml").read_text())
DEFAULTS = {name: str(parameter["Default"]) for name, parameter in TEMPLATE["Parameters"].items()}
SWITCHES = {
    "FunctionUrl": ["RESPONSE_STREAM", "BUFFERED", "OFF"],
    "HttpApi": ["ON", "OFF"],
    "Authorization": ["AWS_IAM", "API_KEY"],
    "ReservedConcurrency": ["-1", "0", "5"],
    "Recordings": ["", "talks/2026/"],
}
NOTHING = object()


def holds(condition, values):
    """The truth of a condition: its name, or an intrinsic function."""
    if isinstance(condition, str):
        return holds(TEMPLATE["Conditions"][condition], values)
    ((name, argument),) = condition.items()
    if name == "Condition":
        return holds(argument, values)
    if name == "Fn::Not":
        return not holds(argument[0], values)
    if name == "Fn::And":
        return all(holds(part, values) for part in argument)
    if name == "Fn::Equals":
        left, right = (resolve(side, values) for side in argument)
        return left == right
    raise ValueError(f"condition {name}")


def resolve(node, values):
    """The node with its parameters and Fn::If replaced; other references stay as they are."""
    if isinstance(node, list):
        return [item for item in (resolve(item, values) for item in node) if item is not NOTHING]
    if not isinstance(node, dict):
        return node
    if node == {"Ref": "AWS::NoValue"}:
        return NOTHING
    if node.keys() == {"Ref"} and node["Ref"] in values:
        return values[node["Ref"]]
    if node.keys() == {"Fn::If"}:
        condition, yes, no = node["Fn::If"]
        return resolve(yes if holds(condition, values) else no, values)
    pairs = ((key, resolve(value, values)) for key, value in node.items())
    return {key: value for key, value in pairs if value is not NOTHING}


def resources(values):
    """The resources that a stack with these parameter values has, each as its type and properties."""
    return {
        name: (resource["Type"], resolve(resource["Properties"], values))
        for name, resource in TEMPLATE["Resources"].items()
        if "Condition" not in resource or holds(resource["Condition"], values)
    }


def of_type(stack, kind):
    return [properties for type_, properties in stack.values() if type_ == kind]


def statements(stack):
    for role in of_type(stack, "AWS::IAM::Role"):
        assert "ManagedPolicyArns" not in role, "a managed policy grants more than this function needs"
        for policy in role["Policies"]:
            yield from policy["PolicyDocument"]["Statement"]


def as_list(value):
    return value if isinstance(value, list) else [value]


def check_least_privilege(stack, values):
    granted = {}
    for statement in statements(stack):
        assert statement["Effect"] == "Allow"
        for action in as_list(statement["Action"]):
            assert "*" not in action, action
            granted[action] = as_list(statement["Resource"])
    logs = [{"Fn::GetAtt": ["Logs", "Arn"]}]
    expected = {"logs:CreateLogStream": logs, "logs:PutLogEvents": logs}
    if values["Authorization"] == "API_KEY":
        expected["secretsmanager:GetSecretValue"] = [{"Ref": "ApiKey"}]
    if values["Recordings"]:
        expected["s3:GetObject"] = [{"Fn::Sub": "arn:${AWS::Partition}:s3:::${Recordings}*"}]
    assert granted == expected, granted


def check_ways_in(stack, values):
    key = values["Authorization"] == "API_KEY"
    edge = "NONE" if key else "AWS_IAM"
    urls = of_type(stack, "AWS::Lambda::Url")
    assert [url["AuthType"] for url in urls] == [edge] * (values["FunctionUrl"] != "OFF")
    assert all(url["InvokeMode"] == values["FunctionUrl"] for url in urls)
    routes = of_type(stack, "AWS::ApiGatewayV2::Route")
    assert [route["AuthorizationType"] for route in routes] == [edge] * (values["HttpApi"] == "ON")

    permissions = of_type(stack, "AWS::Lambda::Permission")
    public = [permission for permission in permissions if permission["Principal"] == "*"]
    assert sorted(permission["Action"] for permission in public) == (
        ["lambda:InvokeFunction", "lambda:InvokeFunctionUrl"] if key and urls else []
    )
    for permission in public:
        assert permission.get("FunctionUrlAuthType") == "NONE" or permission.get("InvokedViaFunctionUrl") is True
    gateway = [permission for permission in permissions if permission not in public]
    assert len(gateway) == len(routes)
    assert all("${Api}" in permission["SourceArn"]["Fn::Sub"] for permission in gateway)


def check_function(stack, values):
    (function,) = of_type(stack, "AWS::Serverless::Function")
    environment = function["Environment"]["Variables"]
    assert environment.get("TEALIGHT_RESPONSE_STREAM") == ("1" if values["FunctionUrl"] == "RESPONSE_STREAM" else None)
    key = values["Authorization"] == "API_KEY"
    assert environment.get("TEALIGHT_API_KEY_SECRET") == ({"Ref": "ApiKey"} if key else None)
    assert len(of_type(stack, "AWS::SecretsManager::Secret")) == key
    reserved = values["ReservedConcurrency"]
    assert function.get("ReservedConcurrentExecutions") == (None if reserved == "-1" else reserved)
    assert "Policies" not in function, "with its own role, SAM ignores them"


def check_defaults():
    stack = resources(DEFAULTS)
    (function,) = of_type(stack, "AWS::Serverless::Function")
    assert function["Runtime"] == "provided.al2023" and function["Handler"] == "bootstrap"
    assert function["CodeUri"] == "target/lambda/tealight/bootstrap.zip"
    assert function["Architectures"] == ["arm64"] and function["MemorySize"] == "1769"
    assert function["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": {"Ref": "Logs"}}
    assert of_type(stack, "AWS::Logs::LogGroup")[0]["RetentionInDays"] == "14"
    assert of_type(stack, "AWS::Lambda::Url")[0]["InvokeMode"] == "RESPONSE_STREAM"
    assert of_type(stack, "AWS::ApiGatewayV2::Api") and DEFAULTS["Authorization"] == "AWS_IAM"
    assert DEFAULTS["Model"] == "all-MiniLM-L6-v2"


def check_parameters():
    bounds = {"AllowedValues", "AllowedPattern", "MinValue"}
    for name, parameter in TEMPLATE["Parameters"].items():
        assert parameter["Description"], name
        assert bounds & parameter.keys(), f"{name} takes anything"
        assert "Default" in parameter, f"{name} must be given"


def main():
    check_parameters()
    check_defaults()
    for choice in itertools.product(*SWITCHES.values()):
        values = DEFAULTS | dict(zip(SWITCHES, choice))
        stack = resources(values)
        for check in (check_least_privilege, check_ways_in, check_function):
            try:
                check(stack, values)
            except AssertionError as error:
                raise SystemExit(f"template.yaml, {check.__name__} with {dict(zip(SWITCHES, choice))}: {error}") from error
    print("template.yaml: defaults, least privilege and ways in are as promised")


if __name__ == "__main__":
    main()
