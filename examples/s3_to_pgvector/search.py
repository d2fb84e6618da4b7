"""Semantic search in the documents that the function has written to PostgreSQL. The same function, and so the same model, embeds the query.

    pip install boto3 'psycopg[binary]'
    export DATABASE_URL=postgres://me@HOST/db
    export TEALIGHT_FUNCTION=arn:aws:lambda:...    # output FunctionArn of sam deploy
    python search.py "how long do we keep invoices?"

The AWS credentials need the permission lambda:InvokeFunction on the function.
"""

import json
import os
import sys

import boto3
import botocore.exceptions
import psycopg

NEAREST = """
    select document_id, text, 1 - (vector <=> %(vector)s::vector) as cosine
    from documents order by vector <=> %(vector)s::vector limit 3
"""


def embed(text):
    response = boto3.client("lambda").invoke(FunctionName=os.environ["TEALIGHT_FUNCTION"], Payload=json.dumps({"input": text}))
    body = json.load(response["Payload"])
    if "FunctionError" in response:
        raise RuntimeError(f"{body.get('errorType')}: {body.get('errorMessage')}")
    return body["data"][0]["embedding"]


def main():
    question = " ".join(sys.argv[1:]) or sys.exit(__doc__)
    # Python's list syntax is also the text format of pgvector.
    vector = str(embed(question))
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        for document, text, cosine in connection.execute(NEAREST, {"vector": vector}):
            print(f"{cosine:.2f}  {document}  {' '.join(text.split())[:200]}")


if __name__ == "__main__":
    try:
        main()
    except KeyError as error:
        sys.exit(f"{error} is not set")
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, psycopg.Error, RuntimeError) as error:
        sys.exit(str(error))
