"""What template.yaml promises, for combinations of its switches: defaults, least privilege, nothing public unasked, no endless loop."""

import itertools
import json
import pathlib
import re

from samtranslator.yaml_helper import yaml_parse

TEMPLATE = yaml_parse((pathlib.Path(__file__).parents[1] / "template.yaml").read_text())
DEFAULTS = {name: str(parameter["Default"]) for name, parameter in TEMPLATE["Parameters"].items()}
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "eu-west-1", "AWS::AccountId": "111122223333", "AWS::StackName": "stack"}
HERE = "eu-west-1:111122223333"
SECRET = f"arn:aws:secretsmanager:{HERE}:secret:sink/key-a1B2c3"
DOMAIN = f"arn:aws:es:{HERE}:domain/papers"
COLLECTION = f"arn:aws:aoss:{HERE}:collection/abc123"
TLS_ONLY = {"Bool": {"aws:SecureTransport": "false"}}
SINKS = {
    "": "",
    "s3": "s3://docs/out/2026",
    "s3, among the inputs": "s3://docs/in/again",
    "s3, a whole bucket": "s3://vectors",
    "s3vectors": "s3vectors://my-vectors/my-index",
    "qdrant": "qdrant+https://qdrant.example:6333/papers",
    "opensearch": "opensearch+https://search.example/papers?aws=es",
    "postgres": "postgres://writer@db.example:5432/papers?table=documents&sslmode=verify-full",
}
# Switches of one group are combined with each other, and with the defaults of all others.
GROUPS = [
    {
        "FunctionUrl": ["RESPONSE_STREAM", "BUFFERED", "OFF"],
        "HttpApi": ["ON", "OFF"],
        "Authorization": ["AWS_IAM", "API_KEY"],
        "ReservedConcurrency": ["-1", "0", "5"],
        "MetricsNamespace": ["", "acme/tealight"],
        "Tracing": ["PassThrough", "Active"],
    },
    {
        "Authorization": ["AWS_IAM", "API_KEY"],
        "Recordings": ["", "talks/2026/"],
        "IndexFile": ["", "notes.tlx", "s3://indexes/a/notes.tlx"],
        "SinkSecretArn": ["", SECRET],
        "SubnetIds": ["", "subnet-1,subnet-2"],
        "SecurityGroupIds": ["", "sg-1"],
    },
    {
        "Sink": list(SINKS.values()),
        "OpenSearchArn": ["", DOMAIN, COLLECTION],
        "SinkFormat": ["", "parquet"],
        "ChunkTokens": ["0", "256"],
        "ChunkOverlap": ["0", "32"],
    },
    {
        "Queue": ["OFF", "STANDARD", "FIFO"],
        "QueueBatchSize": ["1", "10", "11"],
        "DocumentsBucket": ["", "docs"],
        "Sink": ["", SINKS["s3"], SINKS["s3, among the inputs"]],
        "Timeout": TEMPLATE["Parameters"]["Timeout"]["AllowedValues"],
    },
    {
        "DistributedMap": TEMPLATE["Parameters"]["DistributedMap"]["AllowedValues"],
        "MapBucket": ["", "docs", "archive"],
        "MapResults": ["results", "bulk", "in"],
        "Queue": ["OFF", "STANDARD"],
        "DocumentsBucket": ["", "docs"],
        "Sink": ["", SINKS["s3"], SINKS["s3, among the inputs"]],
    },
]
NOTHING = object()


def refers(name, values):
    """What a reference gives: a parameter's value, or the name of a resource in angle brackets."""
    value = values.get(name, f"<{name}>")
    split = TEMPLATE["Parameters"].get(name, {}).get("Type") == "CommaDelimitedList"
    return value.split(",") if split else value


def holds(condition, values):
    """The truth of a condition: its name, or an intrinsic function."""
    if isinstance(condition, str):
        return holds(TEMPLATE["Conditions"][condition], values)
    ((name, argument),) = condition.items()
    if name == "Condition":
        return holds(argument, values)
    if name == "Fn::Not":
        return not holds(argument[0], values)
    if name in ("Fn::And", "Fn::Or"):
        return {"Fn::And": all, "Fn::Or": any}[name](holds(part, values) for part in argument)
    if name in ("Fn::Equals", "Fn::Contains"):
        left, right = (resolve(side, values) for side in argument)
        return left == right if name == "Fn::Equals" else right in left
    raise ValueError(f"condition {name}")


def substituted(argument, values):
    text, more = (argument, {}) if isinstance(argument, str) else argument
    values = values | {name: resolve(value, values) for name, value in more.items()}
    return re.sub(r"\$\{([A-Za-z0-9:.]+)\}", lambda match: refers(match[1], values), text)


def resolve(node, values):
    """The node with intrinsic functions replaced by what they give."""
    if isinstance(node, list):
        return [item for item in (resolve(item, values) for item in node) if item is not NOTHING]
    if not isinstance(node, dict):
        return node
    if node == {"Ref": "AWS::NoValue"}:
        return NOTHING
    if len(node) == 1:
        ((name, argument),) = node.items()
        if name == "Ref":
            return refers(argument, values)
        if name == "Fn::GetAtt":
            return f"<{'.'.join(argument)}>"
        if name == "Fn::If":
            condition, yes, no = argument
            return resolve(yes if holds(condition, values) else no, values)
        if name == "Fn::Sub":
            return substituted(argument, values)
        if name in ("Fn::Join", "Fn::Split", "Fn::Select", "Fn::FindInMap"):
            first, second, *third = (resolve(part, values) for part in argument)
            if name == "Fn::FindInMap":
                return TEMPLATE["Mappings"][first][second][third[0]]
            return {"Fn::Join": str.join, "Fn::Split": lambda by, text: text.split(by), "Fn::Select": lambda at, of: of[at]}[name](
                first, second
            )
    pairs = ((key, resolve(value, values)) for key, value in node.items())
    return {key: value for key, value in pairs if value is not NOTHING}


def resources(values):
    """The resources that a stack with these parameter values has, each as its type and properties."""
    values = PSEUDO | values
    return {
        name: (resource["Type"], resolve(resource["Properties"], values))
        for name, resource in TEMPLATE["Resources"].items()
        if "Condition" not in resource or holds(resource["Condition"], values)
    }


def refused(values):
    """Whether a rule of the template refuses these parameter values."""
    return any(
        holds(rule["RuleCondition"], values) and not all(holds(assertion["Assert"], values) for assertion in rule["Assertions"])
        for rule in TEMPLATE["Rules"].values()
    )


def of_type(stack, kind):
    return [properties for type_, properties in stack.values() if type_ == kind]


def as_list(value):
    return value if isinstance(value, list) else [value]


def flat(statements):
    """Statements as a set of effect, action, resource and condition, so that how they are grouped does not matter."""
    return {
        (statement["Effect"], action, resource, json.dumps(statement.get("Condition")))
        for statement in statements
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def says(effect, actions, *places, condition=None):
    return {(effect, action, place, json.dumps(condition)) for action in actions.split() for place in places}


def granted(stack, role):
    """What a role may do, and may not."""
    assert "ManagedPolicyArns" not in stack[role][1], "a managed policy grants more than is needed"
    policies = list(stack[role][1]["Policies"])
    policies += [policy for policy in of_type(stack, "AWS::IAM::RolePolicy") if policy["RoleName"] == f"<{role}>"]
    found = set().union(*(flat(policy["PolicyDocument"]["Statement"]) for policy in policies))
    assert not [action for _, action, _, _ in found if "*" in action], found
    return found


def inputs(values):
    """Where documents come from, so that nothing may be written there."""
    found = [f"arn:aws:s3:::{values['DocumentsBucket']}/in/*"] if values["DocumentsBucket"] else []
    return found + ([f"arn:aws:s3:::{values['MapBucket']}/bulk/*"] if values["DistributedMap"] != "OFF" else [])


def for_the_sink(values):
    scheme, _, place = values["Sink"].partition("://")
    if scheme == "s3":
        return says("Allow", "s3:PutObject s3:AbortMultipartUpload", f"arn:aws:s3:::{place}/*")
    if scheme == "s3vectors":
        index = f"arn:aws:s3vectors:{HERE}:bucket/my-vectors/index/my-index"
        return says("Allow", "s3vectors:PutVectors s3vectors:DeleteVectors", index)
    if scheme.startswith("opensearch") and values["OpenSearchArn"] == DOMAIN:
        return says("Allow", "es:ESHttpPost es:ESHttpPut", f"{DOMAIN}/papers", f"{DOMAIN}/papers/*")
    if scheme.startswith("opensearch") and values["OpenSearchArn"] == COLLECTION:
        return says("Allow", "aoss:APIAccessAll", COLLECTION)
    return set()


def check_least_privilege(stack, values):
    expected = says("Allow", "logs:CreateLogStream logs:PutLogEvents", "<Logs.Arn>") | for_the_sink(values)
    expected |= says("Deny", "s3:PutObject", *inputs(values))
    if values["Authorization"] == "API_KEY":
        expected |= says("Allow", "secretsmanager:GetSecretValue", "<ApiKey>")
    if values["SinkSecretArn"]:
        expected |= says("Allow", "secretsmanager:GetSecretValue", SECRET)
    if values["Tracing"] == "Active":
        expected |= says("Allow", "xray:PutTraceSegments xray:PutTelemetryRecords", "*")
    if values["Recordings"]:
        expected |= says("Allow", "s3:GetObject", "arn:aws:s3:::talks/2026/*")
    if values["IndexFile"].startswith("s3:"):
        expected |= says("Allow", "s3:GetObject", "arn:aws:s3:::indexes/a/notes.tlx")
    if values["Queue"] != "OFF":
        expected |= says("Allow", "sqs:ReceiveMessage sqs:DeleteMessage sqs:GetQueueAttributes", "<DocumentsQueue.Arn>")
    if values["DocumentsBucket"]:
        expected |= says("Allow", "s3:GetObject s3:GetObjectVersion", "arn:aws:s3:::docs/in/*")
    if values["DistributedMap"] in ("OBJECTS", "MANIFEST"):
        expected |= says("Allow", "s3:GetObject s3:GetObjectVersion", f"arn:aws:s3:::{values['MapBucket']}/bulk/*")
    if values["SubnetIds"] or values["SecurityGroupIds"]:
        interfaces = " ".join(
            f"ec2:{action}"
            for action in (
                "CreateNetworkInterface DescribeNetworkInterfaces DescribeSubnets DeleteNetworkInterface"
                " AssignPrivateIpAddresses UnassignPrivateIpAddresses"
            ).split()
        )
        code = {"ArnLike": {"lambda:SourceFunctionArn": f"arn:aws:lambda:{HERE}:function:*"}}
        expected |= says("Allow", interfaces, "*") | says("Deny", interfaces, "*", condition=code)
    assert granted(stack, "Role") == expected, granted(stack, "Role") ^ expected


def check_least_privilege_of_map(stack, values):
    kind, bucket = values["DistributedMap"], f"arn:aws:s3:::{values['MapBucket']}"
    roles = {"Role"} | ({"MapRole"} if kind != "OFF" else set())
    assert {name for name, (type_, _) in stack.items() if type_ == "AWS::IAM::Role"} == roles
    if kind == "OFF":
        return
    expected = says("Allow", "lambda:InvokeFunction", "<Function.Arn>") | says("Allow", "states:StartExecution", "<Map>")
    runs = (f"arn:aws:states:{HERE}:execution:<Map.Name>{label}:*" for label in ("", "/Documents"))
    expected |= says("Allow", "states:DescribeExecution states:StopExecution states:RedriveExecution", *runs)
    results = "s3:PutObject s3:GetObject s3:ListMultipartUploadParts s3:AbortMultipartUpload"
    expected |= says("Allow", results, f"{bucket}/{values['MapResults']}/*") | says("Deny", "s3:PutObject", *inputs(values))
    if kind != "MANIFEST":
        expected |= says("Allow", "s3:ListBucket", bucket, condition={"StringLike": {"s3:prefix": "bulk/*"}})
    if kind != "OBJECTS":
        expected |= says("Allow", "s3:GetObject", f"{bucket}/bulk/*")
    assert granted(stack, "MapRole") == expected, granted(stack, "MapRole") ^ expected
    (trusted,) = stack["MapRole"][1]["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Principal"] == {"Service": "states.amazonaws.com"}
    assert trusted["Condition"] == {"StringEquals": {"aws:SourceAccount": "111122223333"}}


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
    assert all("<Api>" in permission["SourceArn"] for permission in gateway)


def check_function(stack, values):
    function = stack["Function"][1]
    environment = function["Environment"]["Variables"]
    assert environment.get("TEALIGHT_RESPONSE_STREAM") == ("1" if values["FunctionUrl"] == "RESPONSE_STREAM" else None)
    key = values["Authorization"] == "API_KEY"
    assert environment.get("TEALIGHT_API_KEY_SECRET") == ("<ApiKey>" if key else None)
    assert len(of_type(stack, "AWS::SecretsManager::Secret")) == key
    reserved = values["ReservedConcurrency"]
    assert function.get("ReservedConcurrentExecutions") == (None if reserved == "-1" else reserved)
    assert "Policies" not in function, "with its own role, SAM ignores them"
    for variable, parameter, off in [
        ("POWERTOOLS_METRICS_NAMESPACE", "MetricsNamespace", ""),
        ("TEALIGHT_INDEX", "IndexFile", ""),
        ("TEALIGHT_SINK", "Sink", ""),
        ("TEALIGHT_SINK_FORMAT", "SinkFormat", ""),
        ("TEALIGHT_SINK_SECRET", "SinkSecretArn", ""),
        ("TEALIGHT_CHUNK_TOKENS", "ChunkTokens", "0"),
        ("TEALIGHT_CHUNK_OVERLAP", "ChunkOverlap", "0"),
    ]:
        value = values[parameter]
        assert environment.get(variable) == (None if value == off else value), variable
    assert function["Tracing"] == values["Tracing"]
    subnets, groups = values["SubnetIds"].split(","), values["SecurityGroupIds"].split(",")
    joined = {"SubnetIds": subnets, "SecurityGroupIds": groups} if values["SubnetIds"] or values["SecurityGroupIds"] else None
    assert function.get("VpcConfig") == joined


def check_queue(stack, values):
    if values["Queue"] == "OFF":
        assert not [name for name, (type_, _) in stack.items() if type_.startswith(("AWS::SQS", "AWS::S3::"))]
        assert not of_type(stack, "AWS::Lambda::EventSourceMapping")
        return
    queue, dead, asks = (stack[name][1] for name in ("DocumentsQueue", "DeadLetterQueue", "QueueInvokes"))
    fifo = values["Queue"] == "FIFO"
    for one in (queue, dead):
        assert one["SqsManagedSseEnabled"] is True
        assert one.get("FifoQueue") == (True if fifo else None) and one["QueueName"].endswith(".fifo") == fifo
    assert queue.get("ContentBasedDeduplication") == (True if fifo else None)
    assert int(queue["VisibilityTimeout"]) == 6 * int(values["Timeout"])
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": "<DeadLetterQueue.Arn>", "maxReceiveCount": "5"}
    assert queue["MessageRetentionPeriod"] < dead["MessageRetentionPeriod"] == 14 * 24 * 3600
    assert asks["EventSourceArn"] == "<DocumentsQueue.Arn>" and asks["FunctionName"] == "<Function.Arn>"
    assert asks["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert asks["BatchSize"] == values["QueueBatchSize"] and asks["ScalingConfig"] == {"MaximumConcurrency": "5"}
    assert asks.get("MaximumBatchingWindowInSeconds") == (None if fifo else "1")

    policy = stack["QueuesTakeTlsOnly"][1]
    assert policy["Queues"] == ["<DocumentsQueue>", "<DeadLetterQueue>"]
    source = {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::docs"}, "StringEquals": {"aws:SourceAccount": "111122223333"}}
    expected = says("Deny", "sqs:*", "<DocumentsQueue.Arn>", "<DeadLetterQueue.Arn>", condition=TLS_ONLY)
    if values["DocumentsBucket"]:
        expected |= says("Allow", "sqs:SendMessage", "<DocumentsQueue.Arn>", condition=source)
    assert flat(policy["PolicyDocument"]["Statement"]) == expected


def check_bucket(stack, values):
    buckets = of_type(stack, "AWS::S3::Bucket")
    assert len(buckets) == len(of_type(stack, "AWS::S3::BucketPolicy")) == bool(values["DocumentsBucket"])
    if not buckets:
        return
    (bucket,) = buckets
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert list(bucket["PublicAccessBlockConfiguration"].values()) == [True] * 4
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    assert rule["Status"] == "Enabled" and rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    policy = stack["DocumentsTakeTlsOnly"][1]["PolicyDocument"]["Statement"]
    assert flat(policy) == says("Deny", "s3:*", "<Documents.Arn>", "<Documents.Arn>/*", condition=TLS_ONLY)

    ((events,),) = bucket["NotificationConfiguration"].values()
    assert (events["Event"], events["Queue"]) == ("s3:ObjectCreated:*", "<DocumentsQueue.Arn>")
    (rule,) = events["Filter"]["S3Key"]["Rules"]
    wakes = f"arn:aws:s3:::{bucket['BucketName']}/{rule['Value']}*"
    for role in {"Role", "MapRole"} & stack.keys():
        assert ("Deny", "s3:PutObject", wakes, "null") in granted(stack, role), f"{role} can wake the function for ever"


def check_map(stack, values):
    machines, kind, bucket = of_type(stack, "AWS::StepFunctions::StateMachine"), values["DistributedMap"], values["MapBucket"]
    assert len(machines) == (kind != "OFF")
    if not machines:
        return
    definition = json.loads(machines[0]["DefinitionString"])
    assert "<" not in machines[0]["DefinitionString"].replace("<Function.Arn>", ""), "not all was substituted"
    over = definition["States"]["Documents"]
    reader = over["ItemReader"]
    lists = kind != "MANIFEST"
    assert reader["Resource"] == f"arn:aws:states:::s3:{'listObjectsV2' if lists else 'getObject'}"
    place, given = ("Prefix", "prefix") if lists else ("Key", "key")
    assert reader["Arguments"] == {"Bucket": bucket, place: f"{{% 'bulk/' & $states.input.{given} %}}"}
    whole = {"OBJECTS": "NONE", "MANIFEST": None}
    assert reader["ReaderConfig"].get("Transformation") == whole.get(kind, "LOAD_AND_FLATTEN")
    assert reader["ReaderConfig"].get("InputType") == (None if kind == "OBJECTS" else kind)
    assert ("CSVHeaderLocation" in reader["ReaderConfig"]) == (kind == "CSV")
    batches = {"MaxItemsPerBatch": 100, "MaxInputBytesPerBatch": 250_000, "BatchInput": {"bucket": bucket}}
    assert over["ItemBatcher"] == batches and (over["MaxConcurrency"], over["ToleratedFailurePercentage"]) == (10, 5)
    assert over["ResultWriter"]["Arguments"] == {"Bucket": bucket, "Prefix": values["MapResults"]}
    assert over["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    task = over["ItemProcessor"]["States"]["Embed"]
    assert task["Arguments"] == {"FunctionName": "<Function.Arn>", "Payload": "{% $states.input %}"}
    assert task["TimeoutSeconds"] > max(map(int, TEMPLATE["Parameters"]["Timeout"]["AllowedValues"]))
    retried = {error for retry in task["Retry"] for error in retry["ErrorEquals"]}
    assert {"Lambda.TooManyRequestsException", "Lambda.ServiceException", "States.Timeout"} <= retried
    # What the function itself calls retryable.
    assert {"upstream_error", "overloaded", "object_replaced", "timeout"} <= retried
    assert all(retry["BackoffRate"] > 1 and retry["JitterStrategy"] == "FULL" for retry in task["Retry"])


CHECKS = (
    check_least_privilege,
    check_least_privilege_of_map,
    check_ways_in,
    check_function,
    check_queue,
    check_bucket,
    check_map,
)


def check_defaults():
    stack = resources(DEFAULTS)
    assert set(stack) == {"Function", "Logs", "Role", "Url", "Api", "ApiIntegration", "ApiRoute", "ApiStage", "ApiMayInvoke"}
    function = stack["Function"][1]
    assert function["Runtime"] == "provided.al2023" and function["Handler"] == "bootstrap"
    assert function["CodeUri"] == "target/lambda/tealight/bootstrap.zip"
    assert function["Architectures"] == ["arm64"] and function["MemorySize"] == "1769"
    assert function["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": "<Logs>"}
    assert of_type(stack, "AWS::Logs::LogGroup")[0]["RetentionInDays"] == "14"
    assert of_type(stack, "AWS::Lambda::Url")[0]["InvokeMode"] == "RESPONSE_STREAM"
    assert of_type(stack, "AWS::ApiGatewayV2::Api") and DEFAULTS["Authorization"] == "AWS_IAM"
    assert DEFAULTS["Model"] == "all-MiniLM-L6-v2"
    documents = TEMPLATE["Resources"]["Documents"]
    assert documents["DeletionPolicy"] == documents["UpdateReplacePolicy"] == "Retain"
    assert documents["DependsOn"] == "QueuesTakeTlsOnly", "S3 refuses a queue that it may not send to yet"


def takes(name, value):
    """Whether a parameter takes a value."""
    parameter = TEMPLATE["Parameters"][name]
    values = value.split(",") if parameter["Type"] == "CommaDelimitedList" else [value]
    allowed = map(str, parameter.get("AllowedValues", [value]))
    return value in allowed and all(re.fullmatch(parameter.get("AllowedPattern", ".*"), value) for value in values)


def check_parameters():
    bounds = {"AllowedValues", "AllowedPattern", "MinValue"}
    for name, parameter in TEMPLATE["Parameters"].items():
        assert parameter["Description"], name
        assert bounds & parameter.keys(), f"{name} takes anything"
        assert "Default" in parameter, f"{name} must be given"
        assert takes(name, DEFAULTS[name]), f"{name} refuses its default"
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(TEMPLATE["Parameters"])
    for name, value in [
        ("Sink", "s3://bucket/out/"),
        ("Sink", "s3://bucket/*"),
        ("Sink", "s3vectors://bucket"),
        ("Sink", "postgres://writer:secret@db.example/papers"),
        ("Sink", "https://qdrant.example/papers"),
        ("SinkSecretArn", f"arn:aws:secretsmanager:{HERE}:secret:*"),
        ("OpenSearchArn", f"arn:aws:es:{HERE}:domain/*"),
        ("DocumentsPrefix", ""),
        ("DocumentsPrefix", "in"),
        ("MapPrefix", "a'/"),
        ("MapResults", "results/"),
        ("Timeout", "7"),
    ]:
        assert not takes(name, value), f"{name} takes {value}"


def check_rules():
    for refusal in [
        {"DocumentsBucket": "docs"},
        {"DocumentsBucket": "docs", "Queue": "FIFO"},
        {"Queue": "FIFO", "QueueBatchSize": "11"},
        {"DistributedMap": "CSV"},
    ]:
        assert refused(DEFAULTS | refusal), refusal
    assert not refused(DEFAULTS)


def check_combinations():
    count = 0
    for group in GROUPS:
        for choice in itertools.product(*group.values()):
            chosen = dict(zip(group, map(str, choice)))
            assert all(takes(name, value) for name, value in chosen.items()), chosen
            values = DEFAULTS | chosen
            if refused(values):
                continue
            count += 1
            stack = resources(values)
            for check in CHECKS:
                try:
                    check(stack, values)
                except AssertionError as error:
                    raise SystemExit(f"template.yaml, {check.__name__} with {chosen}: {error}") from error
    return count


def main():
    check_parameters()
    check_defaults()
    check_rules()
    print(f"template.yaml: defaults, least privilege and ways in and out are as promised ({check_combinations()} combinations)")


if __name__ == "__main__":
    main()
