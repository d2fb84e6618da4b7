"""Tests template.yaml for combinations of its parameters: defaults, least privilege, no public access by default, no endless loop."""

import itertools
import json
import pathlib
import re

from samtranslator.yaml_helper import yaml_parse

ROOT = pathlib.Path(__file__).parents[1]
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
DEFAULTS = {name: str(parameter["Default"]) for name, parameter in TEMPLATE["Parameters"].items()}
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "eu-west-1", "AWS::AccountId": "111122223333", "AWS::StackName": "stack"}
ACCOUNT = "eu-west-1:111122223333"
SECRET = f"arn:aws:secretsmanager:{ACCOUNT}:secret:sink/key-a1B2c3"
DOMAIN = f"arn:aws:es:{ACCOUNT}:domain/papers"
COLLECTION = f"arn:aws:aoss:{ACCOUNT}:collection/abc123"
TLS_ONLY = {"Bool": {"aws:SecureTransport": "false"}}
SINKS = {
    "": "",
    "s3": "s3://docs/out/2026",
    "s3, within the inputs": "s3://docs/in/again",
    "s3, without a prefix": "s3://vectors",
    "s3, with an encoding": "s3://vectors/out?encoding=int8",
    "s3vectors": "s3vectors://my-vectors/my-index",
    "qdrant": "qdrant+https://qdrant.example:6333/papers",
    "qdrant, with an encoding": "qdrant+http://qdrant.example:6333/papers?encoding=uint8",
    "opensearch": "opensearch+https://search.example/papers?aws=es",
    "opensearch, with a region and an encoding": "opensearch+https://search.example/papers?aws=aoss&region=eu-west-1&encoding=int8",
    "elasticsearch": "elasticsearch+https://writer@search.example:9200/papers?encoding=binary",
    "postgres": "postgres://writer@db.example:5432/papers?table=documents&sslmode=verify-full",
}
# All combinations of the values in a group are tested, with the defaults of all other parameters.
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
        "SinkFormat": ["", "qdrant"],
        "ChunkTokens": ["0", "256"],
        "ChunkOverlap": ["0", "32"],
    },
    {
        "Queue": ["OFF", "STANDARD", "FIFO"],
        "QueueBatchSize": ["1", "10", "11"],
        "DocumentsBucket": ["", "docs"],
        "Sink": ["", SINKS["s3"], SINKS["s3, within the inputs"]],
        "Timeout": TEMPLATE["Parameters"]["Timeout"]["AllowedValues"],
    },
    {
        "DistributedMap": TEMPLATE["Parameters"]["DistributedMap"]["AllowedValues"],
        "MapBucket": ["", "docs", "archive"],
        "MapResults": ["results", "bulk", "in"],
        "Queue": ["OFF", "STANDARD"],
        "DocumentsBucket": ["", "docs"],
        "Sink": ["", SINKS["s3"], SINKS["s3, within the inputs"]],
    },
]
NO_VALUE = object()


def resolve_ref(name, values):
    """The value of a parameter, or the name of a resource in angle brackets."""
    value = values.get(name, f"<{name}>")
    is_list = TEMPLATE["Parameters"].get(name, {}).get("Type") == "CommaDelimitedList"
    return value.split(",") if is_list else value


def evaluate(condition, values):
    """Evaluates a condition, given by name or as an intrinsic function."""
    if isinstance(condition, str):
        return evaluate(TEMPLATE["Conditions"][condition], values)
    ((name, argument),) = condition.items()
    if name == "Condition":
        return evaluate(argument, values)
    if name == "Fn::Not":
        return not evaluate(argument[0], values)
    if name in ("Fn::And", "Fn::Or"):
        return {"Fn::And": all, "Fn::Or": any}[name](evaluate(part, values) for part in argument)
    if name in ("Fn::Equals", "Fn::Contains"):
        left, right = (resolve(side, values) for side in argument)
        return left == right if name == "Fn::Equals" else right in left
    raise ValueError(f"unsupported condition function {name}")


def substitute(argument, values):
    text, variables = (argument, {}) if isinstance(argument, str) else argument
    values = values | {name: resolve(value, values) for name, value in variables.items()}
    return re.sub(r"\$\{([A-Za-z0-9:.]+)\}", lambda match: resolve_ref(match[1], values), text)


def resolve(node, values):
    """The node with all intrinsic functions evaluated."""
    if isinstance(node, list):
        return [item for item in (resolve(item, values) for item in node) if item is not NO_VALUE]
    if not isinstance(node, dict):
        return node
    if node == {"Ref": "AWS::NoValue"}:
        return NO_VALUE
    if len(node) == 1:
        ((name, argument),) = node.items()
        if name == "Ref":
            return resolve_ref(argument, values)
        if name == "Fn::GetAtt":
            return f"<{'.'.join(argument)}>"
        if name == "Fn::If":
            condition, if_true, if_false = argument
            return resolve(if_true if evaluate(condition, values) else if_false, values)
        if name == "Fn::Sub":
            return substitute(argument, values)
        if name in ("Fn::Join", "Fn::Split", "Fn::Select", "Fn::FindInMap"):
            first, second, *third = (resolve(part, values) for part in argument)
            if name == "Fn::FindInMap":
                return TEMPLATE["Mappings"][first][second][third[0]]
            return {"Fn::Join": str.join, "Fn::Split": lambda by, text: text.split(by), "Fn::Select": lambda index, items: items[index]}[name](
                first, second
            )
    pairs = ((key, resolve(value, values)) for key, value in node.items())
    return {key: value for key, value in pairs if value is not NO_VALUE}


def resources(values):
    """The resources of a stack with these parameter values: (type, properties) by logical id."""
    values = PSEUDO | values
    return {
        name: (resource["Type"], resolve(resource["Properties"], values))
        for name, resource in TEMPLATE["Resources"].items()
        if "Condition" not in resource or evaluate(resource["Condition"], values)
    }


def violates_rule(values):
    """Whether these parameter values violate a rule of the template."""
    return any(
        evaluate(rule["RuleCondition"], values) and not all(evaluate(assertion["Assert"], values) for assertion in rule["Assertions"])
        for rule in TEMPLATE["Rules"].values()
    )


def of_type(stack, resource_type):
    return [properties for type_, properties in stack.values() if type_ == resource_type]


def as_list(value):
    return value if isinstance(value, list) else [value]


def flatten(statements):
    """Policy statements as a set of (effect, action, resource, condition), so that their grouping does not matter."""
    return {
        (statement["Effect"], action, resource, json.dumps(statement.get("Condition")))
        for statement in statements
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def permissions_of(effect, actions, *resource_arns, condition=None):
    return {(effect, action, arn, json.dumps(condition)) for action in actions.split() for arn in resource_arns}


def role_permissions(stack, role):
    """All permissions that the policies of a role allow and deny."""
    assert "ManagedPolicyArns" not in stack[role][1], "a managed policy grants more than necessary"
    policies = list(stack[role][1]["Policies"])
    policies += [policy for policy in of_type(stack, "AWS::IAM::RolePolicy") if policy["RoleName"] == f"<{role}>"]
    permissions = set().union(*(flatten(policy["PolicyDocument"]["Statement"]) for policy in policies))
    assert not [action for _, action, _, _ in permissions if "*" in action], permissions
    return permissions


def input_arns(values):
    """ARNs of the objects that documents are read from, which no role may write to."""
    arns = [f"arn:aws:s3:::{values['DocumentsBucket']}/in/*"] if values["DocumentsBucket"] else []
    return arns + ([f"arn:aws:s3:::{values['MapBucket']}/bulk/*"] if values["DistributedMap"] != "OFF" else [])


def sink_permissions(values):
    scheme, _, path = values["Sink"].partition("?")[0].partition("://")
    if scheme == "s3":
        return permissions_of("Allow", "s3:PutObject s3:AbortMultipartUpload s3:GetObject", f"arn:aws:s3:::{path}/*")
    if scheme == "s3vectors":
        index = f"arn:aws:s3vectors:{ACCOUNT}:bucket/my-vectors/index/my-index"
        return permissions_of("Allow", "s3vectors:PutVectors", index)
    is_opensearch = scheme.startswith(("opensearch+", "elasticsearch+"))
    if is_opensearch and values["OpenSearchArn"] == DOMAIN:
        return permissions_of("Allow", "es:ESHttpPost", f"{DOMAIN}/papers", f"{DOMAIN}/papers/*")
    if is_opensearch and values["OpenSearchArn"] == COLLECTION:
        return permissions_of("Allow", "aoss:APIAccessAll", COLLECTION)
    return set()


def check_least_privilege(stack, values):
    expected = permissions_of("Allow", "logs:CreateLogStream logs:PutLogEvents", "<Logs.Arn>") | sink_permissions(values)
    expected |= permissions_of("Deny", "s3:PutObject", *input_arns(values))
    if values["Authorization"] == "API_KEY":
        expected |= permissions_of("Allow", "secretsmanager:GetSecretValue", "<ApiKey>")
    if values["SinkSecretArn"]:
        expected |= permissions_of("Allow", "secretsmanager:GetSecretValue", SECRET)
    if values["Tracing"] == "Active":
        expected |= permissions_of("Allow", "xray:PutTraceSegments xray:PutTelemetryRecords", "*")
    if values["Recordings"]:
        expected |= permissions_of("Allow", "s3:GetObject", "arn:aws:s3:::talks/2026/*")
    if values["IndexFile"].startswith("s3:"):
        expected |= permissions_of("Allow", "s3:GetObject", "arn:aws:s3:::indexes/a/notes.tlx")
    if values["Queue"] != "OFF":
        expected |= permissions_of("Allow", "sqs:ReceiveMessage sqs:DeleteMessage sqs:GetQueueAttributes", "<DocumentsQueue.Arn>")
    if values["DocumentsBucket"]:
        expected |= permissions_of("Allow", "s3:GetObject", "arn:aws:s3:::docs/in/*")
    if values["DistributedMap"] in ("OBJECTS", "MANIFEST"):
        expected |= permissions_of("Allow", "s3:GetObject", f"arn:aws:s3:::{values['MapBucket']}/bulk/*")
    if values["SubnetIds"] or values["SecurityGroupIds"]:
        interfaces = " ".join(
            f"ec2:{action}"
            for action in (
                "CreateNetworkInterface DescribeNetworkInterfaces DescribeSubnets DeleteNetworkInterface"
                " AssignPrivateIpAddresses UnassignPrivateIpAddresses"
            ).split()
        )
        code = {"ArnLike": {"lambda:SourceFunctionArn": f"arn:aws:lambda:{ACCOUNT}:function:*"}}
        expected |= permissions_of("Allow", interfaces, "*") | permissions_of("Deny", interfaces, "*", condition=code)
    assert role_permissions(stack, "Role") == expected, role_permissions(stack, "Role") ^ expected


def check_least_privilege_of_map(stack, values):
    source, bucket = values["DistributedMap"], f"arn:aws:s3:::{values['MapBucket']}"
    roles = {"Role"} | ({"MapRole"} if source != "OFF" else set())
    assert {name for name, (type_, _) in stack.items() if type_ == "AWS::IAM::Role"} == roles
    if source == "OFF":
        return
    expected = permissions_of("Allow", "lambda:InvokeFunction", "<Function.Arn>") | permissions_of("Allow", "states:StartExecution", "<Map>")
    executions = (f"arn:aws:states:{ACCOUNT}:execution:<Map.Name>{label}:*" for label in ("", "/EmbedDocuments"))
    expected |= permissions_of("Allow", "states:DescribeExecution states:StopExecution states:RedriveExecution", *executions)
    results = "s3:PutObject s3:GetObject s3:ListMultipartUploadParts s3:AbortMultipartUpload"
    expected |= permissions_of("Allow", results, f"{bucket}/{values['MapResults']}/*") | permissions_of("Deny", "s3:PutObject", *input_arns(values))
    if source != "MANIFEST":
        expected |= permissions_of("Allow", "s3:ListBucket", bucket, condition={"StringLike": {"s3:prefix": "bulk/*"}})
    if source != "OBJECTS":
        expected |= permissions_of("Allow", "s3:GetObject", f"{bucket}/bulk/*")
    assert role_permissions(stack, "MapRole") == expected, role_permissions(stack, "MapRole") ^ expected
    (trusted,) = stack["MapRole"][1]["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Principal"] == {"Service": "states.amazonaws.com"}
    assert trusted["Condition"] == {"StringEquals": {"aws:SourceAccount": "111122223333"}}


def check_endpoints(stack, values):
    has_api_key = values["Authorization"] == "API_KEY"
    auth_type = "NONE" if has_api_key else "AWS_IAM"
    urls = of_type(stack, "AWS::Lambda::Url")
    assert [url["AuthType"] for url in urls] == [auth_type] * (values["FunctionUrl"] != "OFF")
    assert all(url["InvokeMode"] == values["FunctionUrl"] for url in urls)
    routes = of_type(stack, "AWS::ApiGatewayV2::Route")
    assert [route["AuthorizationType"] for route in routes] == [auth_type] * (values["HttpApi"] == "ON")

    permissions = of_type(stack, "AWS::Lambda::Permission")
    public = [permission for permission in permissions if permission["Principal"] == "*"]
    assert sorted(permission["Action"] for permission in public) == (
        ["lambda:InvokeFunction", "lambda:InvokeFunctionUrl"] if has_api_key and urls else []
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
    has_api_key = values["Authorization"] == "API_KEY"
    assert environment.get("TEALIGHT_API_KEY_SECRET") == ("<ApiKey>" if has_api_key else None)
    assert len(of_type(stack, "AWS::SecretsManager::Secret")) == has_api_key
    reserved = values["ReservedConcurrency"]
    assert function.get("ReservedConcurrentExecutions") == (None if reserved == "-1" else reserved)
    assert "Policies" not in function, "SAM ignores Policies if Role is set"
    for variable, parameter, unset in [
        ("POWERTOOLS_METRICS_NAMESPACE", "MetricsNamespace", ""),
        ("TEALIGHT_INDEX", "IndexFile", ""),
        ("TEALIGHT_SINK", "Sink", ""),
        ("TEALIGHT_SINK_FORMAT", "SinkFormat", ""),
        ("TEALIGHT_SINK_SECRET", "SinkSecretArn", ""),
        ("TEALIGHT_CHUNK_TOKENS", "ChunkTokens", "0"),
        ("TEALIGHT_CHUNK_OVERLAP", "ChunkOverlap", "0"),
    ]:
        value = values[parameter]
        assert environment.get(variable) == (None if value == unset else value), variable
    assert function["Tracing"] == values["Tracing"]
    subnets, groups = values["SubnetIds"].split(","), values["SecurityGroupIds"].split(",")
    vpc_config = {"SubnetIds": subnets, "SecurityGroupIds": groups} if values["SubnetIds"] or values["SecurityGroupIds"] else None
    assert function.get("VpcConfig") == vpc_config


def check_queue(stack, values):
    if values["Queue"] == "OFF":
        assert not [name for name, (type_, _) in stack.items() if type_.startswith(("AWS::SQS", "AWS::S3::"))]
        assert not of_type(stack, "AWS::Lambda::EventSourceMapping")
        return
    queue, dead_letters, mapping = (stack[name][1] for name in ("DocumentsQueue", "DeadLetterQueue", "QueueEventSource"))
    is_fifo = values["Queue"] == "FIFO"
    for each in (queue, dead_letters):
        assert each["SqsManagedSseEnabled"] is True
        assert each.get("FifoQueue") == (True if is_fifo else None) and each["QueueName"].endswith(".fifo") == is_fifo
    assert queue.get("ContentBasedDeduplication") == (True if is_fifo else None)
    assert int(queue["VisibilityTimeout"]) == 6 * int(values["Timeout"])
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": "<DeadLetterQueue.Arn>", "maxReceiveCount": "5"}
    assert queue["MessageRetentionPeriod"] < dead_letters["MessageRetentionPeriod"] == 14 * 24 * 3600
    assert mapping["EventSourceArn"] == "<DocumentsQueue.Arn>" and mapping["FunctionName"] == "<Function.Arn>"
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BatchSize"] == values["QueueBatchSize"] and mapping["ScalingConfig"] == {"MaximumConcurrency": "5"}
    assert mapping.get("MaximumBatchingWindowInSeconds") == (None if is_fifo else "1")

    policy = stack["QueuesRequireTls"][1]
    assert policy["Queues"] == ["<DocumentsQueue>", "<DeadLetterQueue>"]
    source = {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::docs"}, "StringEquals": {"aws:SourceAccount": "111122223333"}}
    expected = permissions_of("Deny", "sqs:*", "<DocumentsQueue.Arn>", "<DeadLetterQueue.Arn>", condition=TLS_ONLY)
    if values["DocumentsBucket"]:
        expected |= permissions_of("Allow", "sqs:SendMessage", "<DocumentsQueue.Arn>", condition=source)
    assert flatten(policy["PolicyDocument"]["Statement"]) == expected


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
    policy = stack["DocumentsBucketRequiresTls"][1]["PolicyDocument"]["Statement"]
    assert flatten(policy) == permissions_of("Deny", "s3:*", "<DocumentsBucketResource.Arn>", "<DocumentsBucketResource.Arn>/*", condition=TLS_ONLY)

    ((events,),) = bucket["NotificationConfiguration"].values()
    assert (events["Event"], events["Queue"]) == ("s3:ObjectCreated:*", "<DocumentsQueue.Arn>")
    (rule,) = events["Filter"]["S3Key"]["Rules"]
    trigger = f"arn:aws:s3:::{bucket['BucketName']}/{rule['Value']}*"
    for role in {"Role", "MapRole"} & stack.keys():
        assert ("Deny", "s3:PutObject", trigger, "null") in role_permissions(stack, role), f"{role} can trigger the function in an endless loop"


def check_map(stack, values):
    machines, source, bucket = of_type(stack, "AWS::StepFunctions::StateMachine"), values["DistributedMap"], values["MapBucket"]
    assert len(machines) == (source != "OFF")
    if not machines:
        return
    definition = json.loads(machines[0]["DefinitionString"])
    assert "<" not in machines[0]["DefinitionString"].replace("<Function.Arn>", ""), "a variable was not substituted"
    map_state = definition["States"]["EmbedDocuments"]
    reader = map_state["ItemReader"]
    lists_bucket = source != "MANIFEST"
    assert reader["Resource"] == f"arn:aws:states:::s3:{'listObjectsV2' if lists_bucket else 'getObject'}"
    path_argument, input_field = ("Prefix", "prefix") if lists_bucket else ("Key", "key")
    assert reader["Arguments"] == {"Bucket": bucket, path_argument: f"{{% 'bulk/' & $states.input.{input_field} %}}"}
    transformation = {"OBJECTS": "NONE", "MANIFEST": None}
    assert reader["ReaderConfig"].get("Transformation") == transformation.get(source, "LOAD_AND_FLATTEN")
    assert reader["ReaderConfig"].get("InputType") == (None if source == "OBJECTS" else source)
    assert ("CSVHeaderLocation" in reader["ReaderConfig"]) == (source == "CSV")
    batcher = {"MaxItemsPerBatch": 100, "MaxInputBytesPerBatch": 250_000, "BatchInput": {"bucket": bucket}}
    assert map_state["ItemBatcher"] == batcher and (map_state["MaxConcurrency"], map_state["ToleratedFailurePercentage"]) == (10, 5)
    assert map_state["ResultWriter"]["Arguments"] == {"Bucket": bucket, "Prefix": values["MapResults"]}
    assert map_state["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    task = map_state["ItemProcessor"]["States"]["Embed"]
    assert task["Arguments"] == {"FunctionName": "<Function.Arn>", "Payload": "{% $states.input %}"}
    assert task["TimeoutSeconds"] > max(map(int, TEMPLATE["Parameters"]["Timeout"]["AllowedValues"]))
    retried = {error for retry in task["Retry"] for error in retry["ErrorEquals"]}
    assert {"Lambda.TooManyRequestsException", "Lambda.ServiceException", "States.Timeout"} <= retried
    # The error types that the function reports as retryable.
    assert {"upstream_error", "overloaded", "object_replaced", "timeout"} <= retried
    assert all(retry["BackoffRate"] > 1 and retry["JitterStrategy"] == "FULL" for retry in task["Retry"])


CHECKS = (
    check_least_privilege,
    check_least_privilege_of_map,
    check_endpoints,
    check_function,
    check_queue,
    check_bucket,
    check_map,
)


def check_defaults():
    stack = resources(DEFAULTS)
    assert set(stack) == {"Function", "Logs", "Role", "Url", "Api", "ApiIntegration", "ApiRoute", "ApiStage", "HttpApiPermission"}
    function = stack["Function"][1]
    assert function["Runtime"] == "provided.al2023" and function["Handler"] == "bootstrap"
    assert function["CodeUri"] == "target/lambda/tealight/bootstrap.zip"
    assert function["Architectures"] == ["arm64"] and function["MemorySize"] == "1769"
    assert function["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": "<Logs>"}
    assert of_type(stack, "AWS::Logs::LogGroup")[0]["RetentionInDays"] == "14"
    assert of_type(stack, "AWS::Lambda::Url")[0]["InvokeMode"] == "RESPONSE_STREAM"
    assert of_type(stack, "AWS::ApiGatewayV2::Api") and DEFAULTS["Authorization"] == "AWS_IAM"
    assert DEFAULTS["Model"] == "all-MiniLM-L6-v2"
    documents = TEMPLATE["Resources"]["DocumentsBucketResource"]
    assert documents["DeletionPolicy"] == documents["UpdateReplacePolicy"] == "Retain"
    assert documents["DependsOn"] == "QueuesRequireTls", "S3 rejects a queue that it is not yet allowed to send to"


def sink_formats():
    """Names of the formats that the function accepts for an S3 sink, from its source."""
    names = dict(re.findall(r'Format::(\w+) => "([a-z0-9-]+)"', (ROOT / "src/pipeline/format/formats.rs").read_text()))
    source = (ROOT / "src/pipeline/sink/config.rs").read_text()
    (rejected,) = re.findall(r"if matches!\(format, ([^)]*)\)", source)
    return set(names.values()) - {names[variant] for variant in re.findall(r"Format::(\w+)", rejected)}


def accepts(name, value):
    """Whether a value satisfies the constraints of a parameter."""
    parameter = TEMPLATE["Parameters"][name]
    values = value.split(",") if parameter["Type"] == "CommaDelimitedList" else [value]
    allowed = map(str, parameter.get("AllowedValues", [value]))
    return value in allowed and all(re.fullmatch(parameter.get("AllowedPattern", ".*"), value) for value in values)


def check_parameters():
    constraints = {"AllowedValues", "AllowedPattern", "MinValue"}
    for name, parameter in TEMPLATE["Parameters"].items():
        assert parameter["Description"], name
        assert constraints & parameter.keys(), f"{name} has no constraint"
        assert "Default" in parameter, f"{name} has no default"
        assert accepts(name, DEFAULTS[name]), f"{name} does not accept its default"
    formats = TEMPLATE["Parameters"]["SinkFormat"]["AllowedValues"]
    assert {*formats} == sink_formats() | {""} and "jsonl" in formats and "parquet" not in formats, formats
    documented = re.findall(r"`((?:[a-z]+\+https|postgres|s3vectors|s3)://[A-Z@/]+[^`]*)`", (ROOT / "docs/indexes.md").read_text())
    assert len(documented) == 6, documented
    examples = {"HOST": "db.example", "COLLECTION": "c", "INDEX": "index", "DATABASE": "d", "USER": "u", "BUCKET": "bucket", "PREFIX": "out"}
    for url in documented:
        url = re.sub(r"[A-Z]{4,}", lambda match: examples[match[0]], url)
        assert accepts("Sink", url), f"Sink does not accept {url}, which docs/indexes.md documents"
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(TEMPLATE["Parameters"])
    for name, value in [
        ("Sink", "s3://bucket/out/"),
        ("Sink", "s3://bucket/*"),
        ("Sink", "s3vectors://bucket"),
        ("Sink", "postgres://writer:secret@db.example/papers"),
        ("Sink", "opensearch+https://writer:secret@search.example/papers"),
        ("Sink", "elasticsearch+https://writer:secret@search.example/papers"),
        ("Sink", "https://qdrant.example/papers"),
        ("SinkSecretArn", f"arn:aws:secretsmanager:{ACCOUNT}:secret:*"),
        ("OpenSearchArn", f"arn:aws:es:{ACCOUNT}:domain/*"),
        ("DocumentsPrefix", ""),
        ("DocumentsPrefix", "in"),
        ("MapPrefix", "a'/"),
        ("MapResults", "results/"),
        ("Timeout", "7"),
    ]:
        assert not accepts(name, value), f"{name} accepts {value}"


def check_rules():
    for rejected in [
        {"DocumentsBucket": "docs"},
        {"DocumentsBucket": "docs", "Queue": "FIFO"},
        {"Queue": "FIFO", "QueueBatchSize": "11"},
        {"DistributedMap": "CSV"},
    ]:
        assert violates_rule(DEFAULTS | rejected), rejected
    assert not violates_rule(DEFAULTS)


def check_combinations():
    count = 0
    for group in GROUPS:
        for combination in itertools.product(*group.values()):
            chosen = dict(zip(group, map(str, combination)))
            assert all(accepts(name, value) for name, value in chosen.items()), chosen
            values = DEFAULTS | chosen
            if violates_rule(values):
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
    print(f"template.yaml: defaults, permissions, endpoints and event sources are correct ({check_combinations()} combinations)")


if __name__ == "__main__":
    main()
