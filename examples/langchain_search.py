"""LangChain: texts go into a store of vectors, a retriever finds those that fit a question, and a small Llama answers from them.

    pip install langchain-openai
    tealight pull smollm2-135m-instruct
    tealight serve &
    python examples/langchain_search.py "How long is the warranty on a lantern?"

TEALIGHT_URL and TEALIGHT_API_KEY say where tealight is and which key it asks for, as in openai_client.py.
"""

import os
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import APIConnectionError, APIStatusError

URL = os.environ.get("TEALIGHT_URL", "http://127.0.0.1:9000").rstrip("/")
SERVER = {"base_url": f"{URL}/v1", "api_key": os.environ.get("TEALIGHT_API_KEY", "none")}
TEXTS = [
    "Customers may return a lamp within 45 days, with the receipt.",
    "Our shop in Oslo is open from nine to five, but for Sundays.",
    "A beeswax candle burns for eleven hours.",
    "Orders above 80 euros are sent for free.",
    "The warranty on all lanterns is six years.",
]
# What a model of this size understands best: no system message, and the question last.
PROMPT = ChatPromptTemplate.from_messages([("human", 'Text: "{context}"\nAnswer from the text: {question}')])


def main():
    question = " ".join(sys.argv[1:]) or sys.exit(__doc__)
    # Without check_embedding_ctx_length=False, texts are sent as ids of OpenAI's own tokenizer, which mean other words to this model,
    # or none. What is longer than the model reads is then for a text splitter to cut.
    embeddings = OpenAIEmbeddings(model="all-MiniLM-L6-v2", check_embedding_ctx_length=False, **SERVER)
    llm = ChatOpenAI(model="smollm2-135m-instruct", temperature=0, max_completion_tokens=60, **SERVER)

    store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
    found = store.as_retriever(search_kwargs={"k": 2}).invoke(question)
    for document in found:
        print("found:", document.page_content)

    # A model this small is led astray by a second text.
    answer = (PROMPT | llm | StrOutputParser()).invoke({"context": found[0].page_content, "question": question})
    print("answer:", answer.strip())


if __name__ == "__main__":
    try:
        main()
    except APIConnectionError as error:
        sys.exit(f"no answer from {URL}: is `tealight serve` running? ({error.__cause__ or error})")
    except APIStatusError as error:
        sys.exit(f"{error.status_code} {error.message}")
